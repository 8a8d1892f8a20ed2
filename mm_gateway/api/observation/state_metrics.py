"""What the gateway is doing now, read where it is known when somebody asks for the metrics; nothing is counted twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import mm_gateway
from mm_gateway.api.access.admission import Admission
from mm_gateway.api.admin.reload import Reloader
from mm_gateway.api.observation.group_metrics import group_metrics
from mm_gateway.api.observation.local_models import LocalModel, local_models, models_of
from mm_gateway.api.observation.replica_metrics import replica_metrics
from mm_gateway.catalog import Catalog
from mm_gateway.entries import Fleet

OF_REPLICA = ("model_name", "replica", "node")
STATES = ("cold", "loading", "ready", "busy", "evicting")


class StateCollector(Collector):
    """A glance that `look` takes on the event loop, and that is collected on a thread.

    Args:
        catalog: of what is served. admission: of who is served.
    """

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self._catalog = catalog
        self._admission = admission
        self._seen: list[Metric] = []

    def look(self, *, draining: bool, reloader: Reloader, fleet: Fleet | None = None) -> None:
        """See how everything is now. fleet: the processes that run local models, where this one does not."""
        local, labels = (local_models(self._catalog), ("model_name",)) if fleet is None else (models_of(fleet), OF_REPLICA)
        self._seen = [
            *self._gateway(draining),
            *_reloads(reloader),
            *self._requests(local, labels),
            *_models(local, labels),
            *_engines(local, labels),
            *(self._devices() if fleet is None else replica_metrics(fleet)),
            *group_metrics(self._catalog.groups()),
        ]

    def collect(self) -> Iterator[Metric]:
        yield from self._seen

    def _gateway(self, draining: bool) -> Iterator[Metric]:
        info = GaugeMetricFamily("mm_gateway_info", "The version that runs.", labels=("version",))
        info.add_metric((mm_gateway.__version__,), 1)
        yield info
        yield GaugeMetricFamily("mm_gateway_draining", "1: new requests are refused, running ones finish.", int(draining))
        yield GaugeMetricFamily("mm_gateway_requests_live", "Requests that are being answered.", self._admission.live.inside)
        yield GaugeMetricFamily("mm_gateway_requests_queued", "Those of them without a first token.", self._admission.queued.inside)

    def _requests(self, local: Sequence[LocalModel], labels: Sequence[str]) -> Iterator[Metric]:
        """By model. Of local ones the engine knows who runs, as sequences; what others are asked runs elsewhere."""
        asked = Counter(ticket.record.model for ticket in self._admission.tickets if ticket.record.begun is not None)
        here = {model.name for model in local}
        running = GaugeMetricFamily(
            "vllm:num_requests_running", "Sequences that the engine computes, or requests elsewhere.", labels=labels
        )
        waiting = GaugeMetricFamily(
            "vllm:num_requests_waiting", "Sequences in the engine's queue, and requests for a model that loads.", labels=labels
        )
        for info in self._catalog.infos():
            if info.id not in here:
                nowhere = (info.id, "", "")[: len(labels)]
                running.add_metric(nowhere, asked[info.id])
                waiting.add_metric(nowhere, 0)
        for model in local:
            engine = model.engine
            running.add_metric(_label(model, labels), engine.running if engine is not None else 0)
            waiting.add_metric(_label(model, labels), model.status.waiting + (engine.waiting if engine is not None else 0))
        return iter((running, waiting))

    def _devices(self) -> Iterator[Metric]:
        stats = self._catalog.manager_stats()
        if stats is None:
            return
        memory = GaugeMetricFamily("mm_gateway_device_memory_bytes", "That models take of a device.", labels=("device",))
        budget = GaugeMetricFamily("mm_gateway_device_memory_budget_bytes", "That they may take of it.", labels=("device",))
        for device, used in stats.memory.items():
            memory.add_metric((device,), used)
            if (allowed := stats.budgets.get(device)) is not None:
                budget.add_metric((device,), allowed)
        yield memory
        yield budget


def _reloads(reloader: Reloader) -> Iterator[Metric]:
    yield CounterMetricFamily("mm_gateway_reloads", "Times that the files were read anew.", reloader.reloads)
    yield CounterMetricFamily("mm_gateway_reload_failures", "Of these, where a file was broken, and stayed as it was.", reloader.failures)
    text = "0: a file was broken when it was read last, and its last valid form is served."
    yield GaugeMetricFamily("mm_gateway_configuration_valid", text, int(not reloader.errors))


def _models(local: Sequence[LocalModel], labels: Sequence[str]) -> Iterator[Metric]:
    states = GaugeMetricFamily("mm_gateway_model_state", "1 for the state that a local model is in.", labels=(*labels, "state"))
    memory = GaugeMetricFamily("mm_gateway_model_memory_bytes", "That a model in memory takes.", labels=(*labels, "device"))
    for model in local:
        status, label = model.status, _label(model, labels)
        for state in STATES:
            states.add_metric((*label, state), int(state == status.state))
        if status.state in ("ready", "busy") and status.footprint_bytes is not None:
            memory.add_metric((*label, status.device or ""), status.footprint_bytes)
    yield states
    yield memory


def _engines(local: Iterable[LocalModel], labels: Sequence[str]) -> Iterator[Metric]:
    """Counts of an engine begin anew when its model was loaded anew."""

    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=labels)

    def counter(name: str, text: str) -> CounterMetricFamily:
        return CounterMetricFamily(name, text, labels=labels)

    usage = gauge("vllm:kv_cache_usage_perc", "Share of the KV cache that running sequences hold, from 0 to 1.")
    older = gauge("vllm:gpu_cache_usage_perc", "The same by the name that it had before.")
    preemptions = counter("vllm:num_preemptions", "Sequences that had to yield their room to others.")
    drafts = counter("vllm:spec_decode_num_draft_tokens", "Tokens that were guessed.")
    accepted = counter("vllm:spec_decode_num_accepted_tokens", "Guessed tokens that were right.")
    rounds = counter("vllm:spec_decode_num_drafts", "Times that tokens were guessed.")
    text = "Tokens that were guessed: looked up in what came before, or by a draft model."
    guessed = CounterMetricFamily("mm_gateway_guessed_tokens", text, labels=(*labels, "source"))
    right = CounterMetricFamily("mm_gateway_guessed_tokens_accepted", "Those of them that were right.", labels=(*labels, "source"))
    text = "Tokens of prompts whose keys and values came back from memory or disk in place of being computed."
    restored = CounterMetricFamily("mm_gateway_prefix_restored_tokens", text, labels=(*labels, "tier"))
    steps = counter("mm_gateway_engine_steps", "Forward passes.")
    compiles = counter("mm_gateway_grammar_compiles", "Grammars that were compiled.")
    compile_s = counter("mm_gateway_grammar_compile_seconds", "That compiling grammars took.")
    for model in local:
        if (engine := model.engine) is not None:
            label = _label(model, labels)
            usage.add_metric(label, engine.kv_used_tokens / engine.kv_tokens)
            older.add_metric(label, engine.kv_used_tokens / engine.kv_tokens)
            preemptions.add_metric(label, engine.preemptions)
            drafts.add_metric(label, engine.draft_tokens)
            accepted.add_metric(label, engine.accepted_tokens)
            rounds.add_metric(label, engine.drafts)
            for source, guesses in (("lookup", engine.lookup), ("draft_model", engine.draft_model)):
                guessed.add_metric((*label, source), guesses.tokens)
                right.add_metric((*label, source), guesses.accepted)
            for tier, tokens in (("memory", engine.restored.memory), ("disk", engine.restored.disk)):
                restored.add_metric((*label, tier), tokens)
            steps.add_metric(label, engine.steps)
            compiles.add_metric(label, engine.grammar_compiles)
            compile_s.add_metric(label, engine.grammar_compile_s)
    yield from (usage, older, preemptions, rounds, drafts, accepted, guessed, right, restored, steps, compiles, compile_s)


def _label(model: LocalModel, labels: Sequence[str]) -> tuple[str, ...]:
    """Of a model, where those that others run are told apart by who does."""
    return (model.name, model.replica, model.node)[: len(labels)]
