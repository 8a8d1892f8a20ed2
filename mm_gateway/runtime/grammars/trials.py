"""Grammars are tried out in a process of their own before they are compiled here: a crash or a runaway then costs one request.

What came out is remembered by content, whatever the model: a grammar that was tried out once is free from then on.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future

import msgspec

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError, ModelUnavailableError
from mm_gateway.runtime.grammars.lark import without_token_ids
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.sources import source_of
from mm_gateway.runtime.grammars.trial import try_out
from mm_gateway.work_pools import GRAMMARS
from mm_gateway.worker_process import WorkerBusyError, WorkerError, WorkerProcesses, WorkerTimeoutError

TIMEOUT_S = 5.0
"""For one grammar. One of common size takes a millisecond, the largest that the limits let pass about one second."""
WAIT_S = 10.0
"""In which its turn must have come."""
MEMORY_BYTES = 1 << 30
"""Address space of the process."""
_REMEMBERED = 4096


class GrammarTrials:
    """Thread-safe. The process starts with the first grammar."""

    def __init__(self) -> None:
        self._processes = WorkerProcesses("grammar", 1, memory_bytes=MEMORY_BYTES, preload=[try_out.__module__])
        self._lock = threading.Lock()  # two requests with one grammar share its trial, and callbacks come from other threads
        self._outcomes: OrderedDict[bytes, str | None] = OrderedDict()
        self._running: dict[bytes, Future[str | None]] = {}

    def check(self, grammar: Grammar) -> None:
        """Returns once the grammar may be compiled here.

        Raises:
            InvalidRequestError: it is beyond a limit, it is wrong, or compiling it crashes or does not end in time.
            ModelUnavailableError: too many others are waiting for their trial.
        """
        try:
            outcome = self._begin(grammar).result()
        except WorkerError as error:
            raise _refusal(grammar, error) from None
        _raise_for(grammar, outcome)

    async def checked(self, grammar: Grammar) -> None:
        """As `check`, awaited; no thread waits meanwhile."""
        trial = await GRAMMARS.run(self._begin, grammar)
        try:
            outcome = await asyncio.shield(asyncio.wrap_future(trial))  # others may wait for it too
        except WorkerError as error:
            raise _refusal(grammar, error) from None
        _raise_for(grammar, outcome)

    def close(self) -> None:
        """End the process; a later grammar starts another."""
        self._processes.close()

    def _begin(self, grammar: Grammar) -> Future[str | None]:
        """What will be wrong with the grammar, or None."""
        key = content_key(grammar)
        with self._lock:
            if key in self._outcomes:
                self._outcomes.move_to_end(key)
                return _done(self._outcomes[key])
            if (running := self._running.get(key)) is not None:
                return running
        check_size(grammar)
        source = source_of(_for_bytes(grammar))
        with self._lock:
            trial = self._running.get(key)
            if trial is None:
                trial = self._running[key] = self._processes.submit(try_out, source, timeout_s=TIMEOUT_S, wait_s=WAIT_S)
            else:
                return trial
        trial.add_done_callback(lambda trial: self._end(key, trial))
        return trial

    def _end(self, key: bytes, trial: Future[str | None]) -> None:
        with self._lock:
            del self._running[key]
            if trial.cancelled() or trial.exception() is not None:
                return  # the next one may have a calmer machine
            self._outcomes[key] = trial.result()
            if len(self._outcomes) > _REMEMBERED:
                self._outcomes.popitem(last=False)


def _for_bytes(grammar: Grammar) -> Grammar:
    """As it can be tried out over bytes, whatever the model's tokens are."""
    if grammar.kind != "lark" or "<[" not in grammar.text:
        return grammar
    return msgspec.structs.replace(grammar, text=without_token_ids(grammar.text))


def content_key(grammar: Grammar) -> bytes:
    """The same for grammars that mean the same to a compiler, whatever field they came in."""
    return hashlib.sha256(f"{grammar.kind}:{grammar.text}".encode()).digest()


def _raise_for(grammar: Grammar, outcome: str | None) -> None:
    if outcome is not None:
        raise InvalidRequestError(f"{grammar.param} cannot be compiled: {outcome[:500]}", param=grammar.param)


def _refusal(grammar: Grammar, error: WorkerError) -> InvalidRequestError | ModelUnavailableError:
    match error:
        case WorkerBusyError():
            return ModelUnavailableError("Too many grammars are waiting to be compiled: try again", retryable=True, retry_after_s=TIMEOUT_S)
        case WorkerTimeoutError():
            found = f"it takes more than {TIMEOUT_S:g} s"
        case _:
            found = f"it is too complex. {error}"
    return InvalidRequestError(f"{grammar.param} cannot be compiled: {found}. Make it simpler", param=grammar.param)


def _done(outcome: str | None) -> Future[str | None]:
    future: Future[str | None] = Future()
    future.set_result(outcome)
    return future


TRIALS = GrammarTrials()
