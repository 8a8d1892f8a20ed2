"""All replicas of the models, as the API asks them: one handle, which may be lost and found again, and how many replicas run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from mm_gateway.entries import Fleet, ReplicaGlance
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.ray_serve.lifelines import Caller
from mm_gateway.ray_serve.placement import Placement

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle  # type: ignore[import-not-found]

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0
"""What clients are told to wait for replicas, or for the cluster."""
GLANCE_S = 1.5
"""In which a replica tells what it does, or is left out."""


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
        self._waits: dict[asyncio.Timeout, bool] = {}  # whether anything came before
        self._why = "Ray is not connected yet"
        self._caller = Caller()
        self._host = ""
        self._placement = Placement(0)
        self._telling: asyncio.Task[list[Any]] | None = None

    @property
    def running(self) -> int:
        """Replicas that answer now."""
        return self._placement.running

    def found(self, handle: DeploymentHandle, placement: Placement, host: str) -> None:
        """The models can be asked; from any thread. host: this machine's address, as the cluster knows it."""
        self._host, self._handle, self._placement = host, handle, placement

    @property
    def connected(self) -> bool:
        """Between `found` and `lost`."""
        return self._handle is not None

    def count(self, placement: Placement) -> None:
        """Such is their number now; from any thread. What is counted late, of a cluster that is lost since, counts for nothing."""
        if self.connected:
            self._placement = placement
            if placement.nowhere:
                self.on_loop(lambda: self._end_waits(begun=False))

    def lost(self, why: str) -> None:
        """Nothing can be asked until `found` is called; whoever waits gets an error that says why. From any thread."""
        self._handle, self._why, self._placement = None, why, Placement(0)
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
        if self._placement.nowhere:
            raise self._without_place(model)
        if not self.running and not self._may_be_none:
            raise self.unavailable(f"The model `{model}` cannot be reached: no replica of the models runs now. Ray Serve starts another")

    def _without_place(self, model: str) -> ModelUnavailableError:
        why = f"no replica of the models has a place in the Ray cluster: {self._placement.why}"
        return self.unavailable(
            f"The model `{model}` cannot be reached: {why}. One starts when there is room, or lower `ray` in gateway.yaml"
        )

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
        begun = False
        try:
            while True:
                with self._ended_when_lost(model, begun=begun) as wait:
                    async with wait:
                        try:
                            item = await anext(answer)
                        except StopAsyncIteration:
                            return
                begun = True
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

    async def fleet(self) -> Fleet:
        """All replicas; those that do not tell within GLANCE_S are left out of what was seen."""
        now = self._placement
        states = {"running": now.running, "starting": now.starting, "waiting": now.waiting}
        handle = self._handle
        if handle is None or not self.running:
            return Fleet(states)
        if self._telling is None or self._telling.done():  # whoever asks while another does gets the same answers
            told = handle.broadcast("glance")
            self._telling = asyncio.create_task(asyncio.to_thread(told.results, timeout_s=GLANCE_S, return_exceptions=True))
        # Not longer than that, whatever Ray does when a cluster is going.
        await asyncio.wait({self._telling}, timeout=2 * GLANCE_S)
        error = self._telling.exception() if self._telling.done() else TimeoutError()
        if error is not None:
            logger.debug("Ray: the replicas tell nothing: %r", error)
            return Fleet(states)
        seen = [answer for answer in self._telling.result() if isinstance(answer, ReplicaGlance)]
        return Fleet(states, sorted(seen, key=lambda glance: glance.replica))

    @contextlib.contextmanager
    def _ended_when_lost(self, model: str, *, begun: bool = False) -> Iterator[asyncio.Timeout]:
        """A wait that `lost` ends: of a cluster that is gone nothing more comes, not even an error. So does `count` end those to whom
        nothing came yet, where no replica can be."""
        self._loop = asyncio.get_running_loop()
        wait = asyncio.timeout(None)
        self._waits[wait] = begun
        try:
            yield wait
        except TimeoutError:
            if not wait.expired():
                raise
            if self._handle is not None:
                raise self._without_place(model) from None
            raise self.unavailable(f"The model `{model}` was lost: {self._why}") from None
        except Exception as error:
            if not _tells_of_a_loss(error):
                raise
            message = f"The replica that answered for `{model}` was lost. Others go on, or another one takes its place: try again"
            raise ReplicaLostError(message, retryable=True, retry_after_s=RETRY_AFTER_S) from error
        finally:
            self._waits.pop(wait, None)

    def close(self) -> None:
        """Ends what replicas do for this process, as its end does."""
        self._caller.close()

    def _end_waits(self, *, begun: bool = True) -> None:
        """begun: those, too, to whom something came already."""
        for wait, has_begun in self._waits.items():
            if begun or not has_begun:
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
