"""All replicas of the models, as the API asks them: one handle, which may be lost and found again, and how many replicas run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from mm_gateway.errors import ModelUnavailableError
from mm_gateway.ray_serve.lifelines import Caller

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle  # type: ignore[import-not-found]

RETRY_AFTER_S = 5.0
"""What clients are told to wait for replicas, or for the cluster."""


class ReplicaLostError(ModelUnavailableError):
    """The replica that was asked is gone, or its node; another one may answer."""


class Replicas:
    """Asks whichever replica Serve's router picks.

    Args:
        may_be_none: there may be no replica while nobody asks; then requests wait for one.
    """

    def __init__(self, *, may_be_none: bool) -> None:
        self._handle: DeploymentHandle | None = None
        self._may_be_none = may_be_none
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waits: set[asyncio.Timeout] = set()
        self._why = "Ray is not connected yet"
        self._caller = Caller()
        self._host = ""
        self.running = 0
        """Replicas that answer now."""

    def found(self, handle: DeploymentHandle, running: int, host: str) -> None:
        """The models can be asked; from any thread. running: replicas. host: this machine's address, as the cluster knows it."""
        self._host, self._handle, self.running = host, handle, running

    @property
    def connected(self) -> bool:
        """Between `found` and `lost`."""
        return self._handle is not None

    def count(self, running: int) -> None:
        """So many run now; from any thread. What is counted late, of a cluster that is lost since, counts for nothing."""
        if self.connected:
            self.running = running

    def lost(self, why: str) -> None:
        """Nothing can be asked until `found` is called; whoever waits gets an error that says why. From any thread."""
        self._handle, self._why, self.running = None, why, 0
        self.on_loop(self._end_waits)

    def on_loop(self, call: Callable[[], object]) -> None:
        """Have something done on the event loop that asks, where one does; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def check(self, model: str) -> None:
        """Raises:
        ModelUnavailableError: nobody can answer now, with when to come back.
        """
        if self._handle is None:
            raise self.unavailable(f"The model `{model}` cannot be reached: {self._why}")
        if not self.running and not self._may_be_none:
            raise self.unavailable(f"The model `{model}` cannot be reached: no replica of the models runs now. Ray Serve starts another")

    def unavailable(self, message: str) -> ModelUnavailableError:
        return ModelUnavailableError(message, retryable=True, retry_after_s=RETRY_AFTER_S)

    async def stream(self, method: str, *arguments: Any, model: str, session: str) -> AsyncGenerator[Any]:
        """What a replica's generator yields; closing it cancels the replica's, and so does the end of this process.

        Args:
            arguments: of the method; one more says who asks.
            model: for Serve's multiplexing. session: those of one are routed alike, where routing is by prefix.

        Raises:
            ReplicaLostError: the replica is. ModelUnavailableError: the cluster is, or no replica runs.
        """
        caller = await self._caller.address(self._host) if self._handle is not None else None
        self.check(model)  # nothing is waited for from here to the wait that `lost` ends
        assert self._handle is not None
        asked = self._handle.options(stream=True, method_name=method, multiplexed_model_id=model, session_id=session)
        answer = asked.remote(*arguments, caller)
        try:
            while True:
                with self._ended_when_lost(model) as wait:
                    async with wait:
                        try:
                            item = await anext(answer)
                        except StopAsyncIteration:
                            return
                yield item
        finally:
            answer.cancel()

    async def ask(self, method: str, *arguments: Any, model: str, **options: Any) -> Any:
        """A replica's answer; errors as for `stream`."""
        self.check(model)
        assert self._handle is not None
        asked = self._handle.options(method_name=method, multiplexed_model_id=model)
        with self._ended_when_lost(model) as wait:
            async with wait:
                return await asked.remote(*arguments, **options)

    @contextlib.contextmanager
    def _ended_when_lost(self, model: str) -> Iterator[asyncio.Timeout]:
        """A wait that `lost` ends: of a cluster that is gone nothing more comes, not even an error."""
        self._loop = asyncio.get_running_loop()
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            yield wait
        except TimeoutError:
            if not wait.expired():
                raise
            raise self.unavailable(f"The model `{model}` was lost: {self._why}") from None
        except Exception as error:
            if not _tells_of_a_loss(error):
                raise
            message = f"The replica that answered for `{model}` was lost. Others go on, or another one takes its place: try again"
            raise ReplicaLostError(message, retryable=True, retry_after_s=RETRY_AFTER_S) from error
        finally:
            self._waits.discard(wait)

    def close(self) -> None:
        """Ends what replicas do for this process, as its end does."""
        self._caller.close()

    def _end_waits(self) -> None:
        for wait in self._waits:
            wait.reschedule(0)


def _tells_of_a_loss(error: Exception) -> bool:
    """Whether Ray says that a replica's process, its node, or what it sent is gone."""
    if not type(error).__module__.startswith("ray."):
        return False
    from ray import exceptions  # type: ignore[import-not-found]
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError  # type: ignore[import-not-found]

    of_ray = (
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.OwnerDiedError,
        exceptions.WorkerCrashedError,
        exceptions.RaySystemError,
    )
    return isinstance(error, (*of_ray, DeploymentUnavailableError, ReplicaUnavailableError))
