"""Servers of one precision that run at once, of which one is awake: the others' processes are stopped, and take no time from it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
import uvloop

from benchmarks.compare.cells import Cell
from benchmarks.compare.records import Measured
from benchmarks.peers.server import Server
from benchmarks.serving import Report, run
from benchmarks.support.servers import RunningServer, ServerError, running
from benchmarks.support.workload import Workload

PROMPTS = (
    "The capital of France is",
    "Water boils when it is heated to",
    "def fibonacci(n):\n    ",
    "Once upon a time there was a little girl who",
)
AGREEING_TOKENS = 16


class CellError(Exception):
    """A server did not answer a cell; the message is its first error."""


@dataclass
class Contender:
    """A server that was started."""

    server: Server
    running: RunningServer

    def processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.running.pid)
        return [process, *process.children(recursive=True)]

    def sleep(self) -> None:
        for process in self.processes():
            process.suspend()

    def wake(self) -> None:
        for process in self.processes():
            process.resume()

    def warm_up(self, cells: list[Cell]) -> None:
        """Ask for a little of everything that will be measured, of prompts that are not."""
        for tokens in sorted({cell.prompt_tokens for cell in cells}):
            clients = max(cell.clients for cell in cells if cell.prompt_tokens == tokens)
            # Long ones are asked for with few clients: reading them takes longest.
            clients = 1 if self.server.one_at_a_time or tokens > 512 else clients
            self._ask(Workload(clients=clients, requests=clients, prompt_tokens=tokens, output_tokens=8, seed=-1), 600)

    def measure(self, precision: str, cell: Cell, round_index: int, scale: float, timeout_s: float) -> Measured:
        """One cell of one round.

        Raises:
            CellError: a request failed, or all together took longer than timeout_s.
        """
        server = self.server
        self._ask(Workload(clients=1, requests=1, prompt_tokens=8, output_tokens=4, seed=-2 - round_index), timeout_s)
        workload = cell.workload(round_index, scale, one_at_a_time=server.one_at_a_time, ignore_eos=server.takes_ignore_eos)
        before_s = self._cpu_s()
        report = self._ask(workload, timeout_s)
        cpu_s = self._cpu_s() - before_s
        if report.output_tokens != workload.requests * cell.output_tokens:
            raise CellError(f"{report.output_tokens} tokens were answered instead of {workload.requests * cell.output_tokens}")
        tokens = workload.requests * cell.prompt_tokens if cell.is_long else report.output_tokens
        return Measured(
            precision=precision,
            server=server.name,
            cell=cell,
            round=round_index,
            tokens_per_s=tokens / report.duration_s,
            ttft_s=report.ttft.p95,
            gap_s=report.inter_token.p50,
            cpu_s=cpu_s / tokens,
            memory_bytes=float(sum(process.memory_info().rss for process in self.processes())),
            peak_bytes=float(sum(_peak_bytes(process) for process in self.processes())),
        )

    def texts(self) -> list[str]:
        """What it says after `PROMPTS`, greedily."""
        return [self._complete(prompt) for prompt in PROMPTS]

    def _complete(self, prompt: str) -> str:
        url = urlsplit(self.running.base_url)
        body = {"model": self.running.model, "prompt": prompt, "max_tokens": AGREEING_TOKENS, "temperature": 0}
        body |= {"ignore_eos": True} if self.server.takes_ignore_eos else {}
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=300)
        try:
            connection.request("POST", f"{url.path}/completions", json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
            if reply.status != 200:
                raise CellError(f"HTTP {reply.status}: {content[:200].decode(errors='replace')}")
            return json.loads(content)["choices"][0]["text"]
        except (OSError, http.client.HTTPException) as error:
            raise CellError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _ask(self, workload: Workload, timeout_s: float) -> Report:
        async def within() -> Report:
            async with asyncio.timeout(timeout_s):
                return await run(workload, self.running.base_url, self.running.model, timeout_s=timeout_s)

        try:
            report = uvloop.run(within())
        except TimeoutError as error:
            raise CellError(f"not done after {timeout_s:.0f} s") from error
        if report.errors:
            raise CellError(next(iter(report.errors)))
        return report

    def _cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())


def _peak_bytes(process: psutil.Process) -> int:
    """The most that it had in memory since its start. Linux tells it; elsewhere what it has now."""
    try:
        with open(f"/proc/{process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return process.memory_info().rss


class SideBySide:
    """The servers that run now."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._contenders: list[Contender] = []

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, *error: object) -> None:
        for contender in self._contenders:
            try:
                contender.wake()  # what is stopped does not hear that it shall end
            except psutil.NoSuchProcess:
                continue
        self._stack.close()

    def start(self, server: Server, cells: list[Cell]) -> Contender:
        """The server, warm.

        Raises:
            ServerError: it did not start. CellError: it did not answer.
        """
        held = running(server.command, health=server.health, ready_timeout_s=server.ready_timeout_s)
        contender = Contender(server, self._stack.enter_context(held))
        self._contenders.append(contender)
        contender.warm_up(cells)
        return contender

    @contextmanager
    def awake(self, contender: Contender) -> Iterator[Contender]:
        """It runs; it sleeps afterwards.

        Raises:
            ServerError: it has ended.
        """
        try:
            contender.wake()
            try:
                yield contender
            finally:
                contender.sleep()
        except psutil.NoSuchProcess as error:
            raise ServerError(f"{contender.server.name} has ended") from error


def same_tokens(encode, ours: list[str], theirs: list[str]) -> tuple[int, int]:
    """How many tokens two servers' texts have in common from their beginnings on, and how many ours have. encode: from text to ids."""
    same = total = 0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = encode(mine), encode(other)
        same += next((index for index, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
        total += len(a)
    return same, total
