"""`serve deploy` and `serve shutdown` as they are typed, on a cluster with a dashboard."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from compat_tests.support.gateways import environment, free_port
from compat_tests.support.ray_cluster import RayCluster, outcomes, ray_environment

pytestmark = pytest.mark.environments

RAY = {"memory_bytes": "256MiB", "num_cpus": 1, "min_replicas": 2, "max_replicas": 2, "ingress_replicas": 2, "max_surge_percent": 100}
WAIT_S = 120


class Deployment:
    """Files in a folder, and what is typed there."""

    def __init__(self, folder: Path, dashboard: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._dashboard = f"http://127.0.0.1:{dashboard}"

    def write(self, version: int, **ray: object) -> None:
        """The files of a version, which has a model of its name."""
        models = {name: {"model_name": "mock", "backend": "mock"} for name in ("mock", f"version-{version}")}
        (self.folder / "models.yaml").write_text(json.dumps({"models": models}))
        (self.folder / "gateway.yaml").write_text(json.dumps({"ray": {**RAY, **ray}}))
        arguments = {"models": str(self.folder / "models.yaml"), "config": str(self.folder / "gateway.yaml"), "version": version}
        application = {"name": "mm-gateway", "route_prefix": "/", "import_path": "mm_gateway.ray_serve:application", "args": arguments}
        http = {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": self.port}}
        (self.folder / "gateway.serve.yaml").write_text(json.dumps({**http, "applications": [application]}))

    def serve(self, *arguments: str) -> str:
        """Type `serve …`; what it says."""
        command = [str(Path(environment("ray")).with_name("serve")), *arguments, "--address", self._dashboard]
        done = subprocess.run(command, cwd=self.folder, env=ray_environment(), timeout=WAIT_S, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self, version: int, **ray: object) -> None:
        """Returns when the version answers."""
        self.write(version, **ray)
        self.serve("deploy", "gateway.serve.yaml")
        deadline = time.monotonic() + WAIT_S
        while not self._answers(version):
            assert time.monotonic() < deadline, self.serve("status")
            time.sleep(0.5)

    def _answers(self, version: int) -> bool:
        """Whether every ingress replica that answers is of the version, as far as some requests show."""
        try:
            seen = [f"version-{version}" in httpx.get(f"{self.address}/v1/models", timeout=10).text for _ in range(6)]
        except httpx.HTTPError:
            return False
        return all(seen)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    dashboard = free_port()
    cluster = RayCluster(2, cpus=4, dashboard=dashboard)
    yield Deployment(tmp_path_factory.mktemp("deployment"), dashboard)
    cluster.stop()


async def _asked_until(stop: asyncio.Event, address: str) -> Counter[str]:
    """What clients saw that asked one short question after the other."""
    seen: Counter[str] = Counter()
    while not stop.is_set():
        seen += await outcomes(address, 2, tokens=2, delay_s=0)
    return seen


async def test_a_new_version_drops_no_stream_and_refuses_nobody(deployment: Deployment) -> None:
    await asyncio.to_thread(deployment.deploy, 1)
    assert await outcomes(deployment.address, 20, tokens=5, delay_s=0) == {"whole": 20}

    running = asyncio.create_task(outcomes(deployment.address, 20, tokens=400, delay_s=0.1))
    stop = asyncio.Event()
    asking = asyncio.create_task(_asked_until(stop, deployment.address))
    await asyncio.to_thread(deployment.deploy, 2)
    await asyncio.sleep(2)
    stop.set()
    seen = await asking
    assert set(seen) == {"whole"}, seen
    assert await running == {"whole": 20}


def test_status_and_shutdown(deployment: Deployment) -> None:
    status = deployment.serve("status")
    assert "RUNNING" in status and "models" in status and "api" in status
    assert "gateway.yaml" in deployment.serve("config")
    deployment.serve("shutdown", "--yes")
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if httpx.get(f"{deployment.address}/v1/models", timeout=5).status_code != 200:
                break
        except httpx.HTTPError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
