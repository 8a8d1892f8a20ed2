"""Ray clusters and gateways on them as processes of the environment `ray`, ways to break them, and what clients see then."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import site
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from compat_tests.support.gateways import Gateway, environment, free_port, wait_for

ROOT = Path(__file__).parents[2]
REPLICA = "ray::ServeReplica:mm-gateway:models"
TRIES = 3
INGRESS = "ray::ServeReplica:gateway:api"


def ray_environment() -> dict[str, str]:
    """For processes that need the gateway as well as Ray: the environment `ray` holds what the gateway's own does not."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MM_GATEWAY_", "RAY_"))}
    paths = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "OMP_NUM_THREADS": "1"}
    return {**clean, **quiet, "PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled"}


class RayCluster:
    """A cluster of several nodes on this machine.

    Args:
        nodes: how many, or what each has (`num_cpus`, `num_gpus`, `memory` …). cpus: of each, where that is not said.
        dashboard: port of the dashboard, which `serve deploy` asks; 0: none.
    """

    def __init__(self, nodes: int | Sequence[Mapping[str, object]], cpus: int = 4, port: int | None = None, dashboard: int = 0) -> None:
        self.port = port or free_port()
        each = json.dumps([{"num_cpus": cpus, **node} for node in ([{}] * nodes if isinstance(nodes, int) else nodes)])
        command = [environment("ray"), str(Path(__file__).parent / "ray_nodes.py"), str(self.port), each, str(dashboard)]
        # Ray gives a node 30 seconds to come up, in which a busy machine may not get to it.
        for _ in range(TRIES):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ray_environment()
            )
            if self._answers():
                break
            self.kill()
        else:
            raise AssertionError("the cluster did not start")
        # Connections come in at the address of the machine, whatever that is, not at the loopback.
        self.address = f"{_own_address()}:{self.port}"

    def order(self, command: str) -> None:
        """`remove` kills a node and all that runs there, `add` starts one."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._answers(), f"the cluster ended at {command!r}"

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of the cluster whose command begins with a name, the oldest first."""
        found = [process for process in psutil.Process(self._process.pid).children(recursive=True) if _command(process).startswith(name)]
        return sorted(found, key=lambda process: process.pid)

    def kill(self) -> None:
        """All at once, as when the machines lose their power."""
        everything = []
        with _gone():
            here = psutil.Process(self._process.pid)
            everything = [*here.children(recursive=True), here]
        for process in everything:
            with _gone():
                process.kill()
        psutil.wait_procs(everything)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def stop(self) -> None:
        if self._process.poll() is None:
            self.kill()

    def _answers(self) -> bool:
        """False: it ended instead."""
        assert self._process.stdout is not None
        return any(line.strip() in ("ready", "done") for line in self._process.stdout)


@contextmanager
def ray_gateway(
    folder: Path, models: Mapping[str, object], address: str, settings: Mapping[str, object], **sections: object
) -> Iterator[Gateway]:
    """`mm-gateway serve --ray ADDRESS`, ready. settings: `ray:` of gateway.yaml. sections: others of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.yaml").write_text(json.dumps({"models": models}))
    (folder / "gateway.yaml").write_text(json.dumps({**sections, "ray": settings, "server": {"shutdown_grace_s": 1}}))
    port, log = free_port(), folder / "stderr.txt"
    command = [environment("ray"), "-m", "mm_gateway.main", "serve", "--ray", address, "--port", str(port)]
    command += ["--models", str(folder / "models.yaml"), "--config", str(folder / "gateway.yaml")]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr, env={**ray_environment(), "XDG_DATA_HOME": str(folder / "data")})
    try:
        yield wait_for(process, port, log)
        process.terminate()
        process.wait(timeout=60)
        assert process.returncode == 0, f"status {process.returncode}: {log.read_text()}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def outcomes(address: str, count: int, *, tokens: int, delay_s: float) -> collections.Counter[str]:
    """What the clients of so many streams of the model `mock` saw, all at once.

    Returns:
        how many were `whole`; ended by an `error` event; were refused before anything came, as `status 503`; `broken`: their connection
        was, which every client reports; or `silent`: ended as if they were whole, which no client may see.
    """

    async def one(client: httpx.AsyncClient, number: int) -> str:
        text = f"{number}: !mock tokens={tokens} delay={delay_s}"  # conversations that differ go to different replicas
        body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": text}]}
        data = b""
        try:
            async with client.stream("POST", f"{address}/v1/chat/completions", json=body) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    return f"status {reply.status_code}"
                async for piece in reply.aiter_raw():
                    data += piece
        except httpx.HTTPError:
            return "broken"
        if b'data: {"error"' in data:
            return "error"
        return "whole" if data.endswith(b"data: [DONE]\n\n") and data.count(b"data: {") >= tokens else "silent"

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        return collections.Counter(await asyncio.gather(*(one(client, number) for number in range(count))))


def metrics(gateway: Gateway, name: str) -> list[tuple[dict[str, str], float]]:
    """Samples of a name, each with its labels."""
    text = httpx.get(f"{gateway.address}/metrics", timeout=30).text
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return [(sample.labels, sample.value) for sample in found if sample.name == name]


def _own_address() -> str:
    """What Ray takes for this machine's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def _command(process: psutil.Process) -> str:
    with _gone():
        return " ".join(process.cmdline())
    return ""


def _gone() -> AbstractContextManager[None]:
    return suppress(psutil.NoSuchProcess, psutil.ZombieProcess)
