"""Looks at members from time to time, whether they serve: a server that is gone is noticed before a request, one that is back soon.

Of a model of this process it is what its manager knows: one in memory serves, one whose load or engine has just failed does not, and of one
that is not in memory only a request can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from mm_gateway.core import ProbedBackend
from mm_gateway.errors import GatewayError


class Probes:
    """Those of one group.

    Args:
        members: that can be looked at, by name. interval_s: between two looks at one; None: there are none.
        timeout_s: for an answer. tell: gets a member's name and why it does not serve, or None where it does; not called where
            nothing is known.
    """

    def __init__(
        self,
        members: Mapping[str, ProbedBackend],
        interval_s: float | None,
        timeout_s: float,
        tell: Callable[[str, str | None], None],
    ) -> None:
        self._members = members
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """From now on; idempotent."""
        if self._task is None and self._members and self._interval_s is not None:
            self._task = asyncio.create_task(self._run(self._interval_s))

    async def close(self) -> None:
        """No more; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, interval_s: float) -> None:
        while True:
            await asyncio.gather(*(self._look(name, backend) for name, backend in self._members.items()))
            await asyncio.sleep(interval_s)

    async def _look(self, name: str, backend: ProbedBackend) -> None:
        failure: str | None = None
        try:
            if not await backend.probe(self._timeout_s):
                return
        except GatewayError as error:
            failure = str(error)
        self._tell(name, failure)
