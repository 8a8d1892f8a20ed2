"""`/metrics` tells what happened, by vLLM's names where it has them, and never by what a client made up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient
from prometheus_client.parser import text_string_to_metric_families

import mm_gateway
from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.observation.metrics import OTHER, Bounded
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import MemorySettings, Settings
from mm_gateway.core import Backend, ChoiceFinished, TextDelta, Usage
from mm_gateway.entries import Elsewhere, Fleet, ReplicaGlance
from mm_gateway.errors import UpstreamError
from mm_gateway.runtime.engine.stats import EngineStats, Guesses
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.residency.leases import ManagerStats, ModelStatus
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.served import until

CHAT = "/v1/chat/completions"
SCRIPT: list[Step] = [
    TextDelta(0, "a"),
    0.02,
    TextDelta(0, "b"),
    ChoiceFinished(0, "stop"),
    Usage(7, 3, cached_tokens=2, reasoning_tokens=1),
]

VLLM_DASHBOARDS = [
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_sum",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_per_output_token_seconds_bucket",
    "vllm:time_per_output_token_seconds_sum",
    "vllm:time_per_output_token_seconds_count",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:gpu_cache_usage_perc",
    "vllm:kv_cache_usage_perc",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_generation_tokens_bucket",
    "vllm:request_success_total",
    "vllm:request_queue_time_seconds_sum",
    "vllm:request_prefill_time_seconds_sum",
    "vllm:request_decode_time_seconds_sum",
    "vllm:request_inference_time_seconds_sum",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:request_time_per_output_token_seconds_bucket",
]
"""What the queries of vLLM's Grafana dashboards ask for, as of 0.9 to 0.12."""


class Samples(dict[str, list[tuple[dict[str, str], float]]]):
    """By name, each with its labels."""

    @classmethod
    def of(cls, text: str) -> Samples:
        found = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def value(self, name: str, **labels: str) -> float:
        """The sum of those with these labels."""
        return sum(value for found, value in self.get(name, []) if labels.items() <= found.items())


async def scraped(client: AsyncTestClient[Any], **headers: str) -> Samples:
    reply = await client.get("/metrics", headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain")
    return Samples.of(reply.text)


def body(model: str = "scripted", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}


async def test_a_request_is_counted_by_model_and_endpoint() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(SCRIPT))) as client:
        for stream in (True, False):
            await client.post(CHAT, json=body("an-alias", stream=stream))
        samples = await scraped(client)
    labels = {"model_name": "scripted", "endpoint": CHAT}
    assert samples.value("mm_gateway_requests_total", status="200", code="", **labels) == 2
    assert samples.value("vllm:prompt_tokens_total", **labels) == 14
    assert samples.value("vllm:generation_tokens_total", **labels) == 6
    assert samples.value("vllm:prefix_cache_hits_total", **labels) == 4
    assert samples.value("mm_gateway_reasoning_tokens_total", **labels) == 2
    assert samples.value("vllm:request_success_total", finished_reason="stop", **labels) == 2
    assert samples.value("vllm:e2e_request_latency_seconds_count", **labels) == 2
    assert samples.value("vllm:time_to_first_token_seconds_count", **labels) == 2
    for name in ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"):
        assert samples.value(f"{name}_count", **labels) == 2 and 0.04 <= samples.value(f"{name}_sum", **labels) < 1
        assert samples.value(f"{name}_bucket", le="0.01", **labels) == 0
        assert samples.value(f"{name}_bucket", le="+Inf", **labels) == 2
    assert samples.value("mm_gateway_event_loop_lag_seconds_count") >= 0


async def test_names_that_clients_make_up_are_no_labels() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(SCRIPT))) as client:
        for n in range(5):
            await client.post(CHAT, json=body(f"made-up-{n}"))
            await client.get(f"/made/up/{n}")
            await client.request(f"MADE{n}", "/v1/models")
        text = (await client.get("/metrics")).text
    assert "made" not in text.lower()
    samples = Samples.of(text)
    assert samples.value("mm_gateway_requests_total", code="model_not_found", model_name="", endpoint=CHAT) == 5
    assert samples.value("mm_gateway_requests_total", status="404", endpoint=OTHER) == 5
    bounded = Bounded(2)
    assert [bounded(name) for name in "abcab"] == ["a", "b", OTHER, "a", "b"]


async def test_errors_have_codes_of_ours_and_upstream_ones_a_status() -> None:
    backend = ScriptedBackend([UpstreamError("no", status=529, code="their own")])
    async with AsyncTestClient(app_over(backend)) as client:
        await client.post(CHAT, json=body())
        samples = await scraped(client)
    assert samples.value("mm_gateway_upstream_errors_total", model_name="scripted", status="529") == 1
    assert samples.value("mm_gateway_requests_total", code="upstream_error", status="529") == 1
    assert samples.value("vllm:e2e_request_latency_seconds_count") == 0


KEYS = (ApiKey(digest=digest_of("client")),)


@pytest.mark.parametrize(
    ("server", "keys", "opens", "refused"),
    [
        ({}, (), ["", "anything"], {}),
        ({}, KEYS, [], {"": 403, "client": 403}),
        ({"admin_keys": ("admin",)}, KEYS, ["admin"], {"": 401, "client": 401}),
        ({"metrics_key": "scrape", "admin_keys": ("admin",)}, KEYS, ["scrape", "admin"], {"": 401, "client": 401}),
        ({"metrics_key": "scrape"}, (), ["scrape"], {"": 401}),
    ],
)
async def test_metrics_are_open_to_their_key_and_to_admins(
    server: dict[str, Any], keys: tuple[ApiKey, ...], opens: list[str], refused: dict[str, int]
) -> None:
    def authorization(key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    async with AsyncTestClient(app_over(ScriptedBackend([]), keys=keys, **server)) as client:
        for key in opens:
            await scraped(client, **authorization(key))
        for key, status in refused.items():
            assert (await client.get("/metrics", headers=authorization(key))).status_code == status


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    ],
    ids=["Prometheus 2", "Prometheus 3"],
)
async def test_names_have_their_colon_whatever_prometheus_accepts(accept: str) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(SCRIPT))) as client:
        await client.post(CHAT, json=body())
        samples = await scraped(client, accept=accept)
    assert samples.value("vllm:prompt_tokens_total", model_name="scripted") == 7


async def test_gateways_of_one_process_count_apart() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(SCRIPT))) as one, AsyncTestClient(app_over(ScriptedBackend(SCRIPT))) as other:
        await one.post(CHAT, json=body())
        assert (await scraped(one)).value("mm_gateway_requests_total", endpoint=CHAT) == 1
        assert (await scraped(other)).value("mm_gateway_requests_total", endpoint=CHAT) == 0


def local_app() -> GatewayApp:
    config = ModelConfig(
        model_name="tiny", path=str(Path(mm_gateway.__file__).parent / "builtin_models/tiny_chat"), device="cpu", dtype="fp32"
    )
    models = {
        "tiny": config,
        "again": ModelConfig(model_name="x", backend="mock"),
        "second": ModelConfig(model_name="tiny-2", path=config.path),
    }
    settings = Settings(models=models, memory=MemorySettings(max_cached_models=1))
    return create_app(settings, build_catalog(settings))


@pytest.fixture(scope="module")
async def after_work() -> Samples:
    """After requests to two local models of which one has room."""
    async with AsyncTestClient(local_app()) as client:
        for model in ("tiny", "second"):
            reply = await client.post(CHAT, json=body(model, max_tokens=4, ignore_eos=True), timeout=120)
            assert reply.status_code == 200, reply.text
        schema = {"type": "json_object"}
        await client.post(CHAT, json=body("second", max_tokens=4, response_format=schema), timeout=120)
        return await scraped(client)


async def test_models_tell_of_loads_evictions_and_memory(after_work: Samples) -> None:
    assert after_work.value("mm_gateway_model_loads_total", source="disk", model_name="tiny") == 1
    assert after_work.value("mm_gateway_model_load_seconds_count", model_name="second") == 1
    assert after_work.value("mm_gateway_model_evictions_total", reason="room", model_name="tiny") == 1
    assert after_work.value("mm_gateway_model_state", model_name="tiny", state="cold") == 1
    assert after_work.value("mm_gateway_model_state", model_name="second", state="ready") == 1
    assert after_work.value("mm_gateway_model_memory_bytes", model_name="second", device="cpu") > 1000
    assert after_work.value("mm_gateway_device_memory_bytes", device="cpu") > 1000
    assert after_work.value("mm_gateway_device_memory_budget_bytes", device="cpu") > 1e6
    assert after_work.value("mm_gateway_grammar_compiles_total", model_name="second") == 1


async def test_the_engine_tells_where_the_time_of_a_request_went(after_work: Samples) -> None:
    labels = {"model_name": "second", "endpoint": CHAT}
    for phase in ("queue", "prefill", "decode", "inference"):
        assert after_work.value(f"vllm:request_{phase}_time_seconds_count", **labels) == 2
    parts = sum(after_work.value(f"vllm:request_{phase}_time_seconds_sum", **labels) for phase in ("queue", "prefill", "decode"))
    parts += after_work.value("mm_gateway_request_load_time_seconds_sum", **labels)
    assert 0 < parts <= after_work.value("vllm:e2e_request_latency_seconds_sum", **labels)
    assert after_work.value("vllm:num_requests_running", model_name="second") == 0
    assert after_work.value("vllm:kv_cache_usage_perc", model_name="second") == 0
    assert after_work.value("mm_gateway_engine_steps_total", model_name="second") >= 4


async def test_what_vllms_dashboards_ask_for_is_there(after_work: Samples) -> None:
    assert not [name for name in VLLM_DASHBOARDS if not any("model_name" in labels for labels, _ in after_work.get(name, []))]


async def test_who_runs_now_is_told() -> None:
    app = app_over(ScriptedBackend([TextDelta(0, "a"), 30]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:  # type: ignore[arg-type]
        asked = asyncio.create_task(client.post(CHAT, json=body(stream=True)))
        await until(lambda: any(ticket.record.begun for ticket in app.state.admission.tickets))
        samples = Samples.of((await client.get("/metrics")).text)
        asked.cancel()
    assert samples.value("vllm:num_requests_running", model_name="scripted") == 1
    assert samples.value("mm_gateway_requests_live") == 1


async def test_models_that_replicas_run_are_told_by_replica() -> None:
    engine = EngineStats(3, 2, 40, 100, 60, 80, 1, Guesses(4, 9, 5), Guesses(), RestoredTokens(), 1000, 250)
    busy = ModelStatus("busy", device="cpu", footprint_bytes=77, waiting=1)
    manager = ManagerStats(4, 0, 2, 9, 1, 1, {"cpu": 77}, {"cpu": 100})
    seen = [
        ReplicaGlance("r1", "10.0.0.1", "0", {"m": (busy, engine), "n": (ModelStatus("cold"), None)}, manager),
        ReplicaGlance("r2", "10.0.0.2", "", {"m": (ModelStatus("cold"), None)}, None),
    ]

    class Somewhere(Elsewhere):
        def backend(self, name: str, config: ModelConfig) -> Backend:
            return ScriptedBackend(SCRIPT)

        async def fleet(self) -> Fleet:
            return Fleet({"running": 2, "starting": 1}, seen)

    settings = Settings(models={"m": ModelConfig(model_name="m")})
    async with AsyncTestClient(create_app(settings, build_catalog(settings, Somewhere()))) as client:
        samples = await scraped(client)
    first, second = {"replica": "r1", "node": "10.0.0.1"}, {"replica": "r2", "node": "10.0.0.2"}
    assert samples.value("vllm:num_requests_running", model_name="m", **first) == 3
    assert samples.value("vllm:num_requests_waiting", model_name="m", **first) == 3
    assert samples.value("vllm:kv_cache_usage_perc", model_name="m", **first) == 0.25
    assert samples.value("mm_gateway_engine_steps_total", model_name="m", **first) == 40
    assert samples.value("mm_gateway_model_state", model_name="m", state="busy", **first) == 1
    assert samples.value("mm_gateway_model_state", model_name="m", state="cold", **second) == 1
    assert samples.value("mm_gateway_model_memory_bytes", model_name="m", device="cpu", **first) == 77
    assert samples.value("mm_gateway_device_memory_budget_bytes", device="cpu", **first) == 100
    assert samples.value("mm_gateway_replica_model_loads_total", **first) == 4
    assert samples.value("mm_gateway_replica_info", gpus="0", **first) == 1
    assert samples.value("mm_gateway_replicas", state="running") == 2
