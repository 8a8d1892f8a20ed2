"""Models on a Ray cluster of several nodes, each with processes of its own: what clients see, and what they see when something breaks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from compat_tests.support.gateways import Gateway, environment, free_port
from compat_tests.support.ray_cluster import INGRESS, REPLICA, RayCluster, outcomes, ray_environment, ray_gateway

pytestmark = pytest.mark.environments

MODELS: dict[str, object] = {
    "mock": {"model_name": "mock", "backend": "mock"},
    "tiny-chat": {"model_name": "tiny-chat", "path": "builtin:tiny-chat", "device": "cpu"},
}
SMALL = {"memory_bytes": "512MiB", "num_cpus": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(3, cpus=2)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def gateway(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Three replicas on three nodes."""
    settings = {**SMALL, "min_replicas": 3, "max_replicas": 3, "routing": "prefix"}
    with ray_gateway(tmp_path_factory.mktemp("ray"), MODELS, cluster.address, settings) as gateway:
        yield gateway


def _client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0, timeout=60)


def _asked(gateway: Gateway, text: str, **fields: object) -> httpx.Response:
    body = {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}
    return httpx.post(f"{gateway.address}/v1/chat/completions", json=body, timeout=60)


def _asked_until_it_is_back(gateway: Gateway, timeout_s: float = 120) -> int:
    deadline = time.monotonic() + timeout_s
    while (status := _asked(gateway, "hi").status_code) == 503 and time.monotonic() < deadline:
        time.sleep(0.5)
    return status


def test_endpoints_know_nothing_of_it(gateway: Gateway) -> None:
    with _client(gateway) as client:
        assert {"mock", "tiny-chat"} <= {model.id for model in client.models.list()}
        reply = client.chat.completions.create(model="tiny-chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=4)
        assert reply.usage is not None and reply.usage.completion_tokens == 4
        with client.chat.completions.create(model="mock", messages=[{"role": "user", "content": "!mock tokens=5"}], stream=True) as chunks:
            assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 5
        vectors = client.embeddings.create(model="mock", input=["one", "two"])
        assert len(vectors.data) == 2
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="mock", messages=[{"role": "user", "content": "!mock error=context"}])
        assert refused.value.code == "context_length_exceeded"
    described = httpx.get(f"{gateway.address}/v1/models/tiny-chat").json()
    assert described["backend"] == "ray" and described["context_length"] == 2048 and described["details"]["replicas"] == 3


def test_a_conversation_goes_where_its_prefix_is(gateway: Gateway) -> None:
    system = {"role": "system", "content": "You are a small model that answers in short sentences and is never rude to anybody at all."}
    messages: list[object] = [system, {"role": "user", "content": "Hello, who are you?"}]
    cached = []
    for _ in range(3):
        reply = _asked(gateway, "", model="tiny-chat", messages=messages, max_tokens=8, temperature=0).json()
        messages += [{"role": "assistant", "content": reply["choices"][0]["message"]["content"]}, {"role": "user", "content": "And you?"}]
        cached.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert all(cached[1:]), cached


async def test_a_replica_that_dies_ends_its_streams_with_an_error_and_no_others(cluster: RayCluster, gateway: Gateway) -> None:
    running = asyncio.create_task(outcomes(gateway.address, 60, tokens=60, delay_s=0.05))
    await asyncio.sleep(1.5)
    cluster.processes(REPLICA)[0].kill()
    seen = await running
    assert set(seen) <= {"whole", "error"}, seen
    assert seen["whole"]
    assert await outcomes(gateway.address, 60, tokens=5, delay_s=0) == {"whole": 60}


async def test_so_does_a_node(cluster: RayCluster, gateway: Gateway) -> None:
    running = asyncio.create_task(outcomes(gateway.address, 60, tokens=60, delay_s=0.05))
    await asyncio.sleep(1.5)
    await asyncio.to_thread(cluster.order, "remove")
    seen = await running
    assert set(seen) <= {"whole", "error"}, seen
    assert seen["whole"]
    assert await outcomes(gateway.address, 60, tokens=5, delay_s=0) == {"whole": 60}
    await asyncio.to_thread(cluster.order, "add")


async def test_a_client_that_hangs_up_frees_its_replica_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    port = free_port()
    other = RayCluster(1, cpus=2, port=port)
    try:
        with ray_gateway(tmp_path, MODELS, other.address, {**SMALL, "max_requests": 1}) as gateway:
            body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": "!mock tokens=10000 delay=0.05"}]}
            async with httpx.AsyncClient(timeout=60) as client:
                async with client.stream("POST", f"{gateway.address}/v1/chat/completions", json=body) as reply:
                    await anext(reply.aiter_raw())
                started_s = time.monotonic()
                # The one place is taken as long as the replica works for the client that went.
                reply = await client.post(f"{gateway.address}/v1/chat/completions", json={**body, "stream": False, "max_tokens": 2})
                assert reply.status_code == 200
                assert time.monotonic() - started_s < 60  # of the 500 that its reply takes

            running = asyncio.create_task(outcomes(gateway.address, 4, tokens=6000, delay_s=0.05))
            await asyncio.sleep(1)
            other.kill()
            assert set(await asyncio.wait_for(running, 60)) <= {"error", "status 503"}
            lost = _asked(gateway, "hi")
            assert lost.status_code == 503 and int(lost.headers["retry-after"]) >= 1
            other = RayCluster(1, cpus=2, port=port)
            assert await asyncio.to_thread(_asked_until_it_is_back, gateway) == 200
    finally:
        other.stop()


def test_what_is_wrong_is_said_before_the_port_opens(cluster: RayCluster, tmp_path: Path) -> None:
    command = [environment("ray"), "-m", "mm_gateway.main", "serve", "--port", str(free_port()), "--ray", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, env=ray_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nothing listens there" in done.stderr and "mm_gateway serves" not in done.stderr


async def test_the_whole_gateway_as_an_application_survives_a_new_version_and_the_loss_of_an_ingress(tmp_path: Path) -> None:
    port, cluster = free_port(), RayCluster(2, cpus=4)
    address = f"http://127.0.0.1:{port}"

    def deploy(version: int) -> None:
        models = {**MODELS, f"v{version}": {"model_name": "mock", "backend": "mock"}}
        (tmp_path / "models.yaml").write_text(json.dumps({"models": models}))
        (tmp_path / "gateway.yaml").write_text(json.dumps({"ray": {**SMALL, "ingress_replicas": 2}}))
        run = [environment("ray"), "-m", "compat_tests.support.ray_deploy", cluster.address, str(port), str(tmp_path)]
        done = subprocess.run(run, env=ray_environment(), timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    try:
        await asyncio.to_thread(deploy, 1)
        assert await outcomes(address, 20, tokens=5, delay_s=0) == {"whole": 20}

        running = asyncio.create_task(outcomes(address, 40, tokens=200, delay_s=0.05))
        await asyncio.sleep(1)
        await asyncio.to_thread(deploy, 2)
        async with httpx.AsyncClient() as client:
            assert "v2" in (await client.get(f"{address}/v1/models")).text
        assert await running == {"whole": 40}

        running = asyncio.create_task(outcomes(address, 40, tokens=60, delay_s=0.05))
        await asyncio.sleep(1.5)
        cluster.processes(INGRESS)[-1].kill()
        # Serve's proxy holds the connections, and has no words of its own for an API that is gone.
        seen = await running
        assert set(seen) <= {"whole", "broken"}, seen
        assert await outcomes(address, 20, tokens=5, delay_s=0) == {"whole": 20}
    finally:
        cluster.stop()
