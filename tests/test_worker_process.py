"""Calls that crash, run away or take all memory cost themselves; the next call works."""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from mm_gateway import worker_process
from mm_gateway.worker_process import WorkerBusyError, WorkerCrashedError, WorkerProcesses, WorkerTimeoutError

MEMORY_BYTES = 2**29
RUNAWAY = 10**7
"""Its factorial is computed for minutes inside C code that never lets another thread run."""


@pytest.fixture
def one() -> Iterator[WorkerProcesses]:
    processes = WorkerProcesses("test", 1, memory_bytes=MEMORY_BYTES)
    yield processes
    processes.close()


def pid_of(processes: WorkerProcesses) -> int:
    return processes.submit(os.getpid, timeout_s=10).result(60)


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: int) -> str:
    """The kernel's letter for it; Z where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def alive(pid: int) -> bool:
    return state(pid) != "Z"


def test_a_call_runs_in_a_process_that_stays(one: WorkerProcesses) -> None:
    assert one.submit(operator.add, "a" * 2**20, "b", timeout_s=10).result(60) == "a" * 2**20 + "b"
    assert os.getpid() != pid_of(one) == pid_of(one)


def test_what_a_function_raises_arrives_as_itself(one: WorkerProcesses) -> None:
    pid = pid_of(one)
    with pytest.raises(json.JSONDecodeError, match="line 1 column 2"):
        one.submit(json.loads, "{", timeout_s=10).result(60)
    with pytest.raises(TypeError):  # a generator is no result that travels
        one.submit(os.scandir, ".", timeout_s=10).result(60)
    assert pid_of(one) == pid


def test_a_call_that_never_ends_is_ended_and_the_next_one_works(one: WorkerProcesses) -> None:
    with pytest.raises(WorkerTimeoutError, match=r"longer than 0\.1 s"):
        one.submit(math.factorial, RUNAWAY, timeout_s=0.1).result(60)
    assert pid_of(one) > 0


def test_a_process_that_is_stopped_is_given_up_and_the_next_call_works(one: WorkerProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "LATE_S", 0.1)
    os.kill(pid := pid_of(one), signal.SIGSTOP)
    with pytest.raises(WorkerTimeoutError, match=r"longer than 0\.1 s"):
        one.submit(operator.add, "a" * 2**20, "b", timeout_s=0.1).result(60)
    assert pid_of(one) not in (0, pid)


def test_a_crash_is_an_error_that_names_the_signal(one: WorkerProcesses) -> None:
    with pytest.raises(WorkerCrashedError, match="SIGSEGV"):
        one.submit(ctypes.string_at, 0, timeout_s=10).result(60)
    with pytest.raises(WorkerCrashedError, match="SIGABRT"):
        one.submit(os.abort, timeout_s=10).result(60)
    with pytest.raises(WorkerCrashedError, match="status 3"):
        one.submit(os._exit, 3, timeout_s=10).result(60)
    assert pid_of(one) > 0


def test_memory_is_limited(one: WorkerProcesses) -> None:
    with pytest.raises(WorkerCrashedError, match="memory"):
        one.submit(operator.mul, b"x", 2 * MEMORY_BYTES, timeout_s=10).result(60)
    assert pid_of(one) > 0


def test_a_process_that_dies_idle_costs_no_call(one: WorkerProcesses) -> None:
    pid = pid_of(one)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    assert pid_of(one) not in (0, pid)


async def test_cancelling_ends_the_work_that_runs_and_the_work_that_waits(one: WorkerProcesses) -> None:
    running = asyncio.create_task(one.run(math.factorial, RUNAWAY, timeout_s=600))
    waiting = asyncio.create_task(one.run(math.factorial, RUNAWAY, timeout_s=600))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await one.run(operator.add, 1, 1, timeout_s=10) == 2


def test_a_running_call_that_is_cancelled_loses_its_process(one: WorkerProcesses) -> None:
    pid = pid_of(one)
    running = one.submit(os.system, f"kill -STOP {pid}", timeout_s=600)  # a stopped process ends by no timer
    wait_for(lambda: state(pid) == "T")
    assert running.cancel()
    with pytest.raises(CancelledError):
        running.result(0)
    assert pid_of(one) != pid


def test_a_call_that_finds_no_free_process_in_time_is_told_so(one: WorkerProcesses) -> None:
    first = one.submit(time.sleep, 0.3, timeout_s=10)
    with pytest.raises(WorkerBusyError):
        one.submit(os.getpid, timeout_s=10, wait_s=0.0).result(60)
    first.result(60)


def test_calls_of_many_threads_share_the_processes_and_none_takes_anothers_result() -> None:
    processes = WorkerProcesses("test", 2, memory_bytes=MEMORY_BYTES)
    try:
        futures = [processes.submit(operator.mul, number, 2, timeout_s=10, wait_s=60) for number in range(200)]
        bad = processes.submit(ctypes.string_at, 0, timeout_s=10, wait_s=60)
        futures += [processes.submit(operator.mul, number, 2, timeout_s=10, wait_s=60) for number in range(200, 400)]
        assert [future.result(60) for future in futures] == [2 * number for number in range(400)]
        assert isinstance(bad.exception(60), WorkerCrashedError)
    finally:
        processes.close()


def test_closing_fails_what_runs_and_what_waits(one: WorkerProcesses) -> None:
    pid = pid_of(one)
    futures = [one.submit(math.factorial, RUNAWAY, timeout_s=600, wait_s=600) for _ in range(3)]
    one.close()
    one.close()
    assert all(isinstance(future.exception(60), WorkerCrashedError) for future in futures)
    wait_for(lambda: not alive(pid))
    assert pid_of(one) != pid


@pytest.mark.parametrize("busy", [False, True])
def test_the_process_ends_with_a_gateway_that_is_killed(busy: bool) -> None:
    code = f"""
import math, os, time
from mm_gateway.worker_process import WorkerProcesses
processes = WorkerProcesses("test", 1, memory_bytes={MEMORY_BYTES})
print(processes.submit(os.getpid, timeout_s=10).result(60), flush=True)
if {busy}:
    processes.submit(math.factorial, {RUNAWAY}, timeout_s=2)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        wait_for(lambda: state(pid) == ("R" if busy else "S"))
        gateway.kill()
    wait_for(lambda: not alive(pid))


def test_the_processes_keep_no_interpreter_from_ending() -> None:
    code = f"""
import math, os
from mm_gateway.worker_process import WorkerProcesses
processes = WorkerProcesses("test", 1, memory_bytes={MEMORY_BYTES})
print(processes.submit(os.getpid, timeout_s=10).result(60))
processes.submit(math.factorial, {RUNAWAY}, timeout_s=600)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for(lambda: not alive(int(done.stdout)))


def test_a_process_imports_what_it_is_told_and_nothing_heavy() -> None:
    processes = WorkerProcesses("test", 1, memory_bytes=MEMORY_BYTES, preload=["colorsys"])
    try:
        loaded = processes.submit(eval, "set(__import__('sys').modules)", timeout_s=10).result(60)
    finally:
        processes.close()
    assert "colorsys" in loaded
    assert not {"torch", "transformers", "numpy", "litestar", "uvicorn", "httpx"} & loaded
