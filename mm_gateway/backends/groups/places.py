"""Who gets a member with room: at once, or after waiting in line until one has. The router decides; this is where requests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mm_gateway.backends.groups.router import Attempt, Member, Router
from mm_gateway.backends.groups.verdicts import Verdict, nobody
from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.errors import GatewayError


class Places:
    """The line of one group.

    Args:
        group: its name, for errors. clock: that of the event loop, in seconds.
    """

    def __init__(self, group: str, router: Router, clock: Callable[[], float]) -> None:
        self._group = group
        self._router = router
        self._now = clock
        self._line: dict[Wanted, tuple[asyncio.Future[Attempt], float]] = {}
        """Each with its place, once there is one, and until when it waits for it."""

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    async def take(self, wanted: Wanted, said_no: GatewayError | None) -> Attempt:
        """Wait until a member has room, and take the place; `give_back` ends it.

        Args:
            said_no: what a member said that does not do what is asked, where none is in trouble: what the client is told then.

        Raises:
            GatewayError: nobody is left, or has room in time.
        """
        router = self._router
        now = self._now()
        deadline = now + wanted.wait_s
        self.offer()
        decision = router.decide(wanted, now, deadline)
        if isinstance(decision, Member):
            return router.begin(decision, now)
        place: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        self._line[wanted] = place, deadline
        try:
            while not isinstance(decision, Member):
                if decision is None or now >= deadline:
                    raise said_no or self._nobody(wanted, now)
                await asyncio.wait([place], timeout=min(decision, deadline) - now)
                now = self._now()
                self.offer()
                if place.done():
                    return place.result()
                decision = router.decide(wanted, now, deadline)
            return router.begin(decision, now)
        except asyncio.CancelledError:
            if place.done():
                self.give_back(place.result())
            raise
        finally:
            self._line.pop(wanted, None)
            wanted.wait_s = max(deadline - self._now(), 0.0)

    def give_back(self, attempt: Attempt, verdict: Verdict | None = None, why: str = "") -> None:
        """The request is over at its member; arguments as for `Router.ended`."""
        self._router.ended(attempt, self._now(), verdict, why)
        self.offer()

    def offer(self) -> None:
        """Give what became free to those who wait, the first one first."""
        now = self._now()
        for wanted, (place, deadline) in list(self._line.items()):
            decision = self._router.decide(wanted, now, deadline)
            if isinstance(decision, Member):
                del self._line[wanted]
                place.set_result(self._router.begin(decision, now))
            elif not wanted.tried:
                # Where there is no room for one that may go anywhere, there is none for the others.
                break

    def _nobody(self, wanted: Wanted, now: float) -> GatewayError:
        refusal = self._router.refusal(wanted, now)
        return nobody(self._group, refusal.reasons, busy=refusal.busy, retry_after_s=refusal.retry_after_s)
