"""Work that may crash or never end, in processes that are kept warm: such a call costs itself, never the gateway.

Knows nothing of what the work is. Why not `multiprocessing`: its children import the parent's `__main__`, and its pools do not survive
a child that is killed.

A call goes to a child as a pickle over a pipe; the function travels by its name, and the child imports only the module it is in. The
kernel ends a child that takes too long (`setitimer`), even one inside C code that never returns, and even when the gateway is gone.
One that is stopped or frozen does not hear of it, and is killed a little later. An idle child ends with the gateway, at the end of its
pipe.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pickle
import queue
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

START_TIMEOUT_S = 60
"""For Python and the imports of a child, on a machine that is busy."""
LATE_S = 5.0
"""By which a reply may be later than the time of its call."""
_CALL = struct.Struct("!dQ")  # seconds, bytes of the pickle
_REPLY = struct.Struct("!Q")


class WorkerError(Exception):
    """The call has no result, through no exception of its own."""


class WorkerTimeoutError(WorkerError):
    """It took longer than its `timeout_s`."""


class WorkerCrashedError(WorkerError):
    """Its process died, ran out of its memory, or could not be started; the message says which."""


class WorkerBusyError(WorkerError):
    """It never began: all processes had other work for its whole `wait_s`."""


class _Call(NamedTuple):
    work: bytes
    timeout_s: float
    start_by: float
    future: Future[Any]
    """Pending until the end, since only so it can be cancelled."""


class _Raised(NamedTuple):
    error: BaseException


class WorkerProcesses:
    """Processes for one kind of work; the first call starts them, and one that dies is replaced at once. Of any thread.

    Args:
        kind: names the threads. processes: calls at a time, >= 1.
        memory_bytes: address space of each process, the interpreter and its libraries included.
        preload: modules that a process imports before its first call, so that no call pays for them.
    """

    def __init__(self, kind: str, processes: int, *, memory_bytes: int, preload: Sequence[str] = ()) -> None:
        self._kind = kind
        self._processes = processes
        self._command = _command(memory_bytes, preload)
        self._lock = threading.Lock()  # two first calls start one set of processes, and no call comes after the last of a queue
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def submit(self, function: Callable[[*Ts], T], /, *args: *Ts, timeout_s: float, wait_s: float = 10.0) -> Future[T]:
        """Call a function of a module's top level; arguments and result are pickled.

        Cancelling the future ends the work: the process of a call that runs is killed.

        Args:
            timeout_s: seconds that the function gets, > 0, from its start in the process.
            wait_s: seconds in which it must have begun; looked at when a process is free.

        Raises (the future):
            WorkerError: as its kinds say. Else what the function raises.
        """
        work = pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
        call = _Call(work, timeout_s, time.monotonic() + wait_s, Future())
        with self._lock:
            self._start()
            self._calls.put(call)
        return call.future

    async def run(self, function: Callable[[*Ts], T], /, *args: *Ts, timeout_s: float, wait_s: float = 10.0) -> T:
        """As `submit`, awaited; cancelling it ends the work."""
        return await asyncio.wrap_future(self.submit(function, *args, timeout_s=timeout_s, wait_s=wait_s))

    def start(self) -> None:
        """Start the processes now, so that the first call finds them warm; idempotent."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the processes; calls that run or wait fail with WorkerCrashedError. Idempotent; a later call starts new ones."""
        with self._lock:
            workers, self._workers = self._workers, []
            for worker in workers:
                self._calls.put(None)
                worker.close()
        atexit.unregister(self.close)

    def _start(self) -> None:
        if not self._workers:
            self._calls = queue.SimpleQueue()
            self._workers = [_Worker(f"{self._kind}-{number}", self._command, self._calls) for number in range(self._processes)]
            atexit.register(self.close)


class _Worker:
    """One process, and the thread that hands it calls and waits for the replies; a daemon, so that it cannot keep the gateway alive."""

    def __init__(self, name: str, command: Sequence[str], calls: queue.SimpleQueue[_Call | None]) -> None:
        self._command = command
        self._calls = calls
        self._lock = threading.Lock()  # who cancels a call kills the process only while it works on that call
        self._process: subprocess.Popen[bytes] | None = None
        self._current: Future[Any] | None = None
        self._has_started = False
        """The process has replied; before, a call waits for its start too."""
        self._closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        self._restart()
        while (call := self._calls.get()) is not None:
            try:
                outcome = self._outcome(call)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, and the next call needs this thread
                outcome = _Raised(WorkerCrashedError(f"The worker process failed: {error}"))
            with contextlib.suppress(InvalidStateError):  # it was cancelled
                if isinstance(outcome, _Raised):
                    call.future.set_exception(outcome.error)
                else:
                    call.future.set_result(outcome)
        self._end()

    def _outcome(self, call: _Call) -> Any:
        """What the function returned, or _Raised."""
        if call.future.cancelled():
            return None
        if self._closed:
            return _Raised(WorkerCrashedError("The worker processes are closed"))
        if time.monotonic() > call.start_by:
            return _Raised(WorkerBusyError("All worker processes were busy"))
        if self._process is None or self._process.poll() is not None:  # it died while nobody needed it
            self._start()
        with self._lock:
            self._current = call.future
        call.future.add_done_callback(self._kill_if_cancelled)
        began_s = time.monotonic()
        late = threading.Timer(call.timeout_s + LATE_S + (0 if self._has_started else START_TIMEOUT_S), self._kill_if_late, [call.future])
        late.daemon = True
        late.start()
        reply = self._reply(call)
        late.cancel()
        with self._lock:
            self._current = None
        if reply is None or call.future.cancelled():
            error = self._death(call, time.monotonic() - began_s)
            self._restart()
            return _Raised(error)
        self._has_started = True
        outcome = pickle.loads(reply)
        if isinstance(outcome, _Raised) and isinstance(outcome.error, MemoryError):
            self._restart()  # its memory may be in pieces
            return _Raised(WorkerCrashedError("Its process ran out of the memory that it may use"))
        return outcome

    def _reply(self, call: _Call) -> bytes | None:
        """None where the process died."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(_CALL.pack(call.timeout_s, len(call.work)) + call.work)
            process.stdin.flush()
        except OSError:
            return None
        head = process.stdout.read(_REPLY.size)
        if len(head) < _REPLY.size:
            return None
        (size,) = _REPLY.unpack(head)
        reply = process.stdout.read(size)
        return reply if len(reply) == size else None

    def _death(self, call: _Call, seconds: float) -> WorkerError:
        assert self._process is not None
        self._process.kill()  # nothing where it is dead
        status = self._process.wait()
        if status == -signal.SIGALRM or seconds > call.timeout_s + LATE_S:
            return WorkerTimeoutError(f"It took longer than {call.timeout_s:g} s")
        return WorkerCrashedError(f"Its process ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}")

    def _kill_if_cancelled(self, future: Future[Any]) -> None:
        with self._lock:
            if future.cancelled() and self._current is future and self._process is not None:
                self._process.kill()

    def _kill_if_late(self, future: Future[Any]) -> None:
        with self._lock:
            if self._current is future and self._process is not None:
                self._process.kill()

    def _restart(self) -> None:
        """So that the next call finds a warm process; what prevents it shows there."""
        with contextlib.suppress(OSError):
            self._start()

    def _start(self) -> None:
        self._end()
        # A group of its own, since Ctrl-C in a terminal is for the gateway.
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        with self._lock:
            self._process, self._has_started = process, False
            if self._closed:
                process.kill()

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError), process:  # which closes the pipes and waits; what was not written yet goes nowhere
                pass


def serve_calls(memory_bytes: int) -> None:
    """What a child does: takes calls from stdin and writes replies to stdout, until stdin ends."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # it has started in time
    calls, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while len(head := calls.read(_CALL.size)) == _CALL.size:
        timeout_s, size = _CALL.unpack(head)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        reply = _reply_to(calls.read(size))
        replies.write(_REPLY.pack(len(reply)) + reply)
        replies.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply_to(work: bytes) -> bytes:
    try:
        function, args = pickle.loads(work)
        return pickle.dumps(function(*args), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - the caller raises it, in the other process
        return _raised(error)


def _raised(error: BaseException) -> bytes:
    """An error as a pickle; as a RuntimeError with its text, where it is none that can be pickled and made again."""
    try:
        reply = pickle.dumps(_Raised(error), pickle.HIGHEST_PROTOCOL)
        pickle.loads(reply)
        return reply
    except Exception:  # noqa: BLE001 - an error's own code may fail in any way as it is pickled
        return pickle.dumps(_Raised(RuntimeError(f"{type(error).__name__}: {error}")), pickle.HIGHEST_PROTOCOL)


def _command(memory_bytes: int, preload: Sequence[str]) -> list[str]:
    """Python with this process's own path, which is not always that of the environment; SIGALRM ends it until it serves."""
    code = f"""import signal, sys; signal.alarm({START_TIMEOUT_S}); sys.path[:] = {sys.path!r}
import {", ".join([__name__, *preload])}
{__name__}.serve_calls({memory_bytes})"""
    return [sys.executable, "-c", code]
