"""The thread of one engine: takes jobs in, runs the step loop, and is its last resort; knows nothing of tokens or tensors.

However the loop ends, nobody is left waiting: every job gets its answer or an error, and what comes later is refused.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mm_gateway.errors import EngineError, GatewayError, ModelUnavailableError, RateLimitError, ShuttingDownError
from mm_gateway.runtime.engine.requests.embedding_job import EmbeddingJob
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.engine.requests.text_job import TextJob
from mm_gateway.runtime.engine.stats import EngineStats
from mm_gateway.runtime.engine.step_loop import StepLoop
from mm_gateway.runtime.watchdog import WATCHDOG
from mm_gateway.throughput import Throughput

logger = logging.getLogger(__name__)

STEP_BOUND_S = 60.0
"""Seconds of one step after which the log shows where it hangs. Far above any step that works, a first one on a new device included."""
SAVE_S = 8.0
"""Seconds that an engine's end may take for prefixes that are kept; of those that the end of the process has for all."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Take a job in."""

    job: TextJob | EmbeddingJob


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop a job; unknown ones are ignored."""

    generation: Generation


@dataclass(frozen=True, slots=True)
class Close:
    """End the thread."""


class EngineThread:
    """Runs jobs until closed. Methods may be called from any thread; the work happens in the engine's own.

    Commands go in through a queue that is emptied before each step; events go out after each step, in one hand-over.

    Args:
        name: the model's, for the thread's name.
        loop: does the work. Only this thread touches it.
        max_sequences: running and waiting together; beyond it jobs are refused.
        on_failure: told once when the loop has failed, after all jobs were. Called in the engine's thread, as its last
            act: it must not wait for `close`.
    """

    def __init__(self, name: str, loop: StepLoop, *, max_sequences: int, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self._loop = loop
        self._max_sequences = max_sequences
        self._on_failure = on_failure
        self._sequences = 0  # submitted and not yet released; guarded by _accepting
        self._releases = Throughput()
        self._commands: queue.SimpleQueue[Submit | Cancel | Close] = queue.SimpleQueue()
        self._closing = False
        self._failure: BaseException | None = None
        self._accepting = threading.Lock()  # so that no job slips in behind the end of the loop, where nobody would read it
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> BaseException | None:
        """What ended the loop, if anything did; the engine is of no further use then."""
        return self._failure

    def submit(self, job: TextJob | EmbeddingJob) -> None:
        """Queue a job.

        Raises:
            ModelUnavailableError: the engine has failed. ShuttingDownError: it is closing. RateLimitError: the queue is full.
        """
        count = job.places
        with self._accepting:
            if self._failure is not None:
                raise ModelUnavailableError(
                    "The model's engine has failed and is being replaced; send the request again", retryable=True, retry_after_s=1.0
                )
            if self._closing:
                raise ShuttingDownError("The model is being unloaded")
            excess = self._sequences + count - self._max_sequences
            if excess > 0:
                # More than the whole queue holds will never find room in it.
                retry_after_s = self._releases.seconds_for(excess) if count <= self._max_sequences else None
                raise RateLimitError(f"The model's queue is full: {self._sequences} sequences run or wait", retry_after_s=retry_after_s)
            self._sequences += count
            self._commands.put(Submit(job))

    def cancel(self, generation: Generation) -> None:
        """Drop a job's sequences before the next step; unknown ones are ignored."""
        self._commands.put(Cancel(generation))

    def close(self) -> None:
        """Fail what is left with ShuttingDownError and end the thread; returns when it has ended."""
        with self._accepting:
            if not self._closing:
                self._closing = True
                self._commands.put(Close())
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def stats(self) -> EngineStats:
        return self._loop.stats()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with self._loop.on_device():
                while self._carry_out_commands():
                    started = time.monotonic()
                    # For each step anew: two locks that are all but never contended, microseconds beside a forward pass.
                    with WATCHDOG.watch(f"a step of {self._thread.name}", STEP_BOUND_S):
                        released = self._loop.step()
                    self._count_released(released, started)
        except BaseException as error:  # the last resort: without it, everybody here would wait for ever
            logger.exception("the engine's loop failed; its requests fail, and the model has to be loaded anew")
            failure = error
        self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        """Answer everybody who still waits; from here on nobody is let in."""
        reason: GatewayError = ShuttingDownError("The model was unloaded")
        if failure is not None:
            cause = f": {failure}" if isinstance(failure, GatewayError) else ""
            reason = EngineError(f"The model's engine failed{cause}. The model is loaded anew; send the request again")
        with self._accepting:
            self._failure = failure
            self._closing = True
        jobs: list[TextJob | EmbeddingJob] = []
        while not self._commands.empty():
            command = self._commands.get()
            if isinstance(command, Submit):
                jobs.append(command.job)
        self._loop.abandon(reason, jobs)
        try:
            self._loop.close(save_s=0.0 if failure is not None else SAVE_S)
        except Exception:
            logger.exception("the KV cache could not be closed; what it holds is not kept")
        if failure is not None and self._on_failure is not None:
            try:
                self._on_failure(failure)
            except Exception:
                logger.exception("nobody could be told that an engine failed")

    def _carry_out_commands(self) -> bool:
        """Empty the queue; blocks while there is no work. False: close."""
        idle = not self._loop.busy
        while True:
            try:
                command = self._commands.get(block=idle)
            except queue.Empty:
                return True
            match command:
                case Submit(job):
                    self._loop.add(job)
                case Cancel(generation):
                    self._loop.cancel(generation)
                case Close():
                    return False
            idle = False

    def _count_released(self, released: int, started: float) -> None:
        """How fast sequences leave, which is how fast those that wait can come in."""
        self._releases.observe(released, time.monotonic() - started)
        if released:
            with self._accepting:
                self._sequences -= released
