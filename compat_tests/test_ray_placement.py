"""Where replicas come to run, what is said where they cannot, and what the API's metrics tell of them and of their engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from compat_tests.support.gateways import Gateway
from compat_tests.support.ray_cluster import RayCluster, metrics, outcomes, ray_gateway

pytestmark = pytest.mark.environments

MOCK: dict[str, object] = {"mock": {"model_name": "mock", "backend": "mock"}}
TINY: dict[str, object] = {"model_name": "tiny-chat", "path": "builtin:tiny-chat", "device": "cpu"}
WAIT_S = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head without GPUs, and two nodes with two each. GPUs are counted by Ray, and need not be there."""
    gpus = {"num_cpus": 2, "num_gpus": 2, "memory": 2 * 2**30}
    cluster = RayCluster([{"num_cpus": 2, "num_gpus": 0, "memory": 2**30}, gpus, gpus])
    yield cluster
    cluster.stop()


def total(gateway: Gateway, name: str, **labels: str) -> float:
    return sum(value for found, value in metrics(gateway, name) if labels.items() <= found.items())


def asked(gateway: Gateway, model: str = "mock", text: str = "hi") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return httpx.post(f"{gateway.address}/v1/chat/completions", json=body, timeout=WAIT_S)


def until_logged(gateway: Gateway, text: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while text not in gateway.log.read_text():
        assert time.monotonic() < deadline, gateway.log.read_text()
        time.sleep(0.2)


def test_each_replica_has_gpus_of_its_own(cluster: RayCluster, tmp_path: Path) -> None:
    with ray_gateway(tmp_path, MOCK, cluster.address, {"num_gpus": 1, "num_cpus": 0.5, "min_replicas": 4, "max_replicas": 4}) as gateway:
        assert asked(gateway).status_code == 200
        seen = sorted(labels["gpus"] for labels, _ in metrics(gateway, "mm_gateway_replica_info"))
        assert seen == ["0", "0", "1", "1"]  # of two nodes
        assert total(gateway, "mm_gateway_replicas", state="running") == 4


def test_shares_of_a_gpu_are_beside_each_other_on_it(cluster: RayCluster, tmp_path: Path) -> None:
    settings = {"num_gpus": 0.5, "num_cpus": 0.25, "min_replicas": 8, "max_replicas": 8}
    with ray_gateway(tmp_path, MOCK, cluster.address, settings) as gateway:
        seen = sorted(labels["gpus"] for labels, _ in metrics(gateway, "mm_gateway_replica_info"))
        assert seen == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize(
    ("settings", "wanted", "there"),
    [
        ({"num_gpus": 3}, "num_gpus 3", "num_gpus: 4 of 4 free, at most 2 on one node"),
        ({"memory_bytes": "3GiB"}, "memory_bytes 3.0GiB", "memory_bytes: 5.0GiB of 5.0GiB free, at most 2.0GiB on one node"),
        ({"num_gpus": 3, "min_replicas": 0}, "num_gpus 3", "at most 2 on one node"),
    ],
)
def test_what_no_node_can_take_is_told_and_waited_for(
    cluster: RayCluster, tmp_path: Path, settings: dict[str, object], wanted: str, there: str
) -> None:
    with ray_gateway(tmp_path, MOCK, cluster.address, {"num_cpus": 0.5, **settings}) as gateway:
        started_s = time.monotonic()
        reply = asked(gateway)
        assert time.monotonic() - started_s < 30
        assert reply.status_code == 503 and int(reply.headers["retry-after"]) >= 1
        message = reply.json()["error"]["message"]
        assert wanted in message and there in message, message
        if "min_replicas" not in settings:
            until_logged(gateway, "1 replicas of the models have no place")


def test_replicas_that_others_leave_no_room_for_are_told(cluster: RayCluster, tmp_path: Path) -> None:
    """There would be room on a node, were it free; those that have a place serve."""
    settings = {"memory_bytes": "1.5GiB", "num_cpus": 0.5, "min_replicas": 3, "max_replicas": 3}
    with ray_gateway(tmp_path, MOCK, cluster.address, settings) as gateway:
        assert asked(gateway).status_code == 200
        until_logged(gateway, "1 replicas of the models have no place")
        assert [total(gateway, "mm_gateway_replicas", state=state) for state in ("running", "starting", "waiting")] == [2, 0, 1]
        assert "memory_bytes: 2.0GiB of 5.0GiB free, at most 1.0GiB on one node" in gateway.log.read_text()


def test_a_model_is_loaded_by_few_replicas_and_what_their_engines_do_is_in_the_metrics(cluster: RayCluster, tmp_path: Path) -> None:
    models = {f"tiny-{n}": {**TINY, "model_name": f"tiny-{n}"} for n in range(4)}
    settings = {"memory_bytes": "512MiB", "num_cpus": 0.5, "min_replicas": 2, "max_replicas": 2}
    with ray_gateway(tmp_path, models, cluster.address, settings, memory={"max_cached_models": 2}) as gateway:
        for _ in range(3):
            for name in models:
                assert asked(gateway, name).status_code == 200
                time.sleep(0.3)  # in which Serve tells its routers who has the model now
        states = metrics(gateway, "mm_gateway_model_state")
        assert {labels["model_name"] for labels, _ in states} == set(models)
        assert len({labels["replica"] for labels, _ in states}) == 2 and all(labels["node"] for labels, _ in states)
        # Four models, four places: each is loaded once or, where two routes crossed, twice; without routing it would be each time.
        assert total(gateway, "mm_gateway_replica_model_loads_total") <= 6
        assert total(gateway, "mm_gateway_engine_steps_total") > 0
        assert total(gateway, "mm_gateway_device_memory_budget_bytes", device="cpu") == 2 * 512 * 2**20
        assert {labels["replica"] for labels, _ in metrics(gateway, "vllm:kv_cache_usage_perc")} == {
            labels["replica"] for labels, _ in states
        }


async def test_a_model_that_is_used_is_not_evicted_for_another(cluster: RayCluster, tmp_path: Path) -> None:
    models = {f"tiny-{n}": {**TINY, "model_name": f"tiny-{n}"} for n in range(2)}
    settings = {"memory_bytes": "512MiB", "num_cpus": 0.5}
    body = {"model": "tiny-0", "stream": True, "max_tokens": 400, "ignore_eos": True, "messages": [{"role": "user", "content": "hi"}]}
    with ray_gateway(tmp_path, models, cluster.address, settings, memory={"max_cached_models": 1}) as gateway:
        async with (
            httpx.AsyncClient(timeout=WAIT_S) as client,
            client.stream("POST", f"{gateway.address}/v1/chat/completions", json=body) as reply,
        ):
            lines = reply.aiter_lines()
            await anext(lines)
            other = asyncio.create_task(asyncio.to_thread(asked, gateway, "tiny-1"))
            received = [line async for line in lines]
        assert received[-2:] == ["data: [DONE]", ""] and not any('"error"' in line for line in received)
        assert (await other).status_code == 200
        assert total(gateway, "mm_gateway_replica_model_evictions_total") == 1


async def test_replicas_come_under_load_and_go_after_it(cluster: RayCluster, tmp_path: Path) -> None:
    settings = {
        "memory_bytes": "256MiB",
        "num_cpus": 0.5,
        "min_replicas": 0,
        "max_replicas": 3,
        "target_requests": 4,
        "upscale_delay_s": 1,
        "downscale_delay_s": 2,
    }

    async def until(replicas: int, gateway: Gateway) -> None:
        deadline = time.monotonic() + 3 * WAIT_S
        while await asyncio.to_thread(total, gateway, "mm_gateway_replicas", state="running") != replicas:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)

    with ray_gateway(tmp_path, MOCK, cluster.address, settings) as gateway:
        assert total(gateway, "mm_gateway_replicas", state="running") == 0
        running = asyncio.create_task(outcomes(gateway.address, 12, tokens=900, delay_s=0.1))
        await until(3, gateway)
        assert await running == {"whole": 12}
        await until(0, gateway)
        assert await outcomes(gateway.address, 1, tokens=2, delay_s=0) == {"whole": 1}
