"""What requests and models did, as Prometheus counts it: by vLLM's names where it has them, so that its dashboards work.

No label holds what a client made up: a model is one that is served, an endpoint one of the table, a code one of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from mm_gateway.api.observation.gaps import GapHistogram
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.errors import UpstreamError
from mm_gateway.runtime.residency.history import ModelEvent
from mm_gateway.timeline import SpanName

MAX_MODELS = 500
"""Names of models that labels hold; patterns of `allow:` may open any number. Later ones are counted as OTHER."""
OTHER = "other"

_FIRST_TOKEN_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    640.0,
)
_REQUEST_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0)
_LOAD_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_TOKENS = tuple(float(mantissa * 10**exponent) for exponent in range(6) for mantissa in (1, 2, 5))
BY_MODEL = ("model_name", "endpoint")


class Bounded:
    """Names as labels: the first `most` different ones, and OTHER for all after them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


class RequestMetrics:
    """An observer of requests; `model_event` hears of models, from any thread, and `lag` of the event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Sequence[str] = BY_MODEL) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = BY_MODEL) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._model = Bounded(MAX_MODELS)
        # What `labels` of a metric finds anew each time, by a lock and a tuple of strings; a request asks for a dozen.
        self._of = functools.cache(_labelled)
        self._requests = counter("mm_gateway_requests", "Requests that ended, refused ones too.", (*BY_MODEL, "status", "code"))
        self._gone = counter("mm_gateway_clients_gone", "Requests whose client hung up before the end.")
        self._upstream = counter(
            "mm_gateway_upstream_errors", "Requests that ended by an upstream server's error.", ("model_name", "status")
        )
        self._success = counter("vllm:request_success", "Choices that ended well, by how.", (*BY_MODEL, "finished_reason"))
        self._prompt = counter("vllm:prompt_tokens", "Tokens of prompts, cached ones too.")
        self._output = counter("vllm:generation_tokens", "Tokens generated, those of thoughts too.")
        self._reasoning = counter("mm_gateway_reasoning_tokens", "Tokens generated that are thoughts.")
        self._queries = counter("vllm:prefix_cache_queries", "Tokens of prompts that were looked up in the KV cache.")
        self._hits = counter("vllm:prefix_cache_hits", "Tokens of prompts that were in the KV cache.")
        self._first = histogram("vllm:time_to_first_token_seconds", "From the arrival of a request to its first token.", _FIRST_TOKEN_S)
        self._whole = histogram("vllm:e2e_request_latency_seconds", "From the arrival of a request to the end of its reply.", _REQUEST_S)
        self._prompts = histogram("vllm:request_prompt_tokens", "Tokens of a request's prompts.", _TOKENS)
        self._outputs = histogram("vllm:request_generation_tokens", "Tokens generated for a request.", _TOKENS)
        self._per_token = histogram(
            "vllm:request_time_per_output_token_seconds", "Mean seconds a token after the first, of a request.", _FIRST_TOKEN_S
        )
        self._gaps = GapHistogram()
        registry.register(self._gaps)
        self._phases: dict[SpanName, Histogram] = {
            "queue": histogram("vllm:request_queue_time_seconds", "Until the engine began with a request.", _REQUEST_S),
            "prefill": histogram("vllm:request_prefill_time_seconds", "From then on to its first token.", _REQUEST_S),
            "decode": histogram("vllm:request_decode_time_seconds", "From its first token on to the last.", _REQUEST_S),
            "load": histogram("mm_gateway_request_load_time_seconds", "Until a request's model was in memory.", _LOAD_S),
            "upstream": histogram("mm_gateway_request_upstream_time_seconds", "That upstream servers took for a request.", _REQUEST_S),
        }
        self._inference = histogram("vllm:request_inference_time_seconds", "Prefill and decode of a request together.", _REQUEST_S)
        self._loads = counter("mm_gateway_model_loads", "Loads of a model, by where its weights came from.", ("model_name", "source"))
        self._load_s = histogram("mm_gateway_model_load_seconds", "That the load of a model took.", _LOAD_S, ("model_name",))
        self._load_failures = counter("mm_gateway_model_load_failures", "Downloads and loads of a model that failed.", ("model_name",))
        self._evictions = counter("mm_gateway_model_evictions", "Times that a model left memory, by why.", ("model_name", "reason"))
        self._lag = histogram(
            "mm_gateway_event_loop_lag_seconds", "That the event loop was late; it is what all requests share.", _LAG_S, ()
        )
        self.lag = self._lag.observe

    def finished(self, record: RequestRecord) -> None:
        error, of = record.error, self._of
        model = self._model(record.model)
        labels = (model, record.endpoint or OTHER)
        code = "upstream_error" if isinstance(error, UpstreamError) else record.error_code
        of(self._requests, *labels, str(record.status or ""), code).inc()
        if record.client_gone:
            of(self._gone, *labels).inc()
        if isinstance(error, UpstreamError):
            of(self._upstream, model, str(error.status)).inc()
        if record.begun is not None and model:
            self._generated(record, labels)

    def model_event(self, name: str, event: ModelEvent) -> None:
        """A local model came, left, or failed. name: that it is served by."""
        name = self._model(name)
        match event.kind:
            case "loaded":
                self._loads.labels(name, "host" if event.from_host else "disk").inc()
                self._load_s.labels(name).observe(event.seconds or 0.0)
            case "evicted":
                self._evictions.labels(name, event.reason or "").inc()
            case "failed":
                self._load_failures.labels(name).inc()

    def _generated(self, record: RequestRecord, labels: tuple[str, str]) -> None:
        of = self._of
        of(self._prompt, *labels).inc(record.prompt_tokens)
        of(self._output, *labels).inc(record.output_tokens)
        if (first_s := record.time_to_first_token_s) is not None:
            of(self._first, *labels).observe(first_s)
        if record.gaps is not None:
            self._gaps.add(labels, record.gaps, record.gaps_s)
        seconds = record.timeline.seconds
        for phase, histogram in self._phases.items():
            if (phase_s := seconds.get(phase)) is not None:
                of(histogram, *labels).observe(phase_s)
        if "prefill" in seconds:
            of(self._inference, *labels).observe(seconds["prefill"] + seconds.get("decode", 0.0))
        if record.error is not None:
            return
        of(self._whole, *labels).observe(record.duration_s)
        for reason in record.finish_reasons or (("abort",) if record.client_gone else ()):
            of(self._success, *labels, reason).inc()
        if (usage := record.usage) is not None:
            self._counted(record, usage.prompt_tokens, usage.completion_tokens, labels)
            of(self._hits, *labels).inc(usage.cached_tokens)
            of(self._reasoning, *labels).inc(usage.reasoning_tokens)

    def _counted(self, record: RequestRecord, prompt_tokens: int, output_tokens: int, labels: tuple[str, str]) -> None:
        of = self._of
        of(self._queries, *labels).inc(prompt_tokens)
        of(self._prompts, *labels).observe(prompt_tokens)
        of(self._outputs, *labels).observe(output_tokens)
        if output_tokens > 1 and record.first_output is not None and record.last_output is not None:
            of(self._per_token, *labels).observe((record.last_output - record.first_output) / (output_tokens - 1))


def _labelled(metric: Counter | Histogram, *labels: str) -> Any:
    return metric.labels(*labels)
