"""Which member of a group a request goes to, when, and what is learned from how it went; pure: clock and chance are handed in.

A request is decided on in this order:

1. Members that it was sent to, that are drained, or that have no larger context than one that was too small for it, are out.
2. Of the others, those whose context very likely has room for it come first. The rest is asked when nothing else is left: whether a
   prompt fits, its model alone knows.
3. Of these, members that are healthy, or that were ejected and may be tried again, by one request at a time; and that are not at their
   limits. Where none will be in time, an ejected one is tried before its time: one that may serve again is better than none.
4. Where there is none now, the request waits.
5. Of these, where the strategy is one that looks for it, members that hold the model; one that would have to load it once they have
   enough requests. What is known of that may be old, which costs time and nothing else.
6. The strategy chooses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from statistics import median

import msgspec

from mm_gateway.backends.groups.health import Health
from mm_gateway.backends.groups.limits import Limits
from mm_gateway.backends.groups.retry_budget import RetryBudget
from mm_gateway.backends.groups.servers import Server
from mm_gateway.backends.groups.strategies import STRATEGIES, warm_or_cold
from mm_gateway.backends.groups.verdicts import Verdict
from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.core import Allowance

LATENCIES, FEWEST_LATENCIES = 20, 5
"""Times to the first token of which a member's median is taken; with fewer it has none."""
SLOW_S = 1.0
"""Nobody is slow whose median is below."""


class Member:
    """One member as the router sees it.

    Attributes:
        running: requests of this group that it answers. draining: it gets no new ones.
        context_length: tokens; None: unknown. requests, failures: since the start. loaded: its model is in memory, as far as is known.
    """

    def __init__(self, rules: GroupMember, routing: GroupRouting, server: Server) -> None:
        self.name = rules.name
        self.weight = rules.weight
        self.health = Health(routing)
        self.limits = Limits(rules)
        self.running = 0
        self.draining = False
        self.context_length: int | None = None
        self.loaded = True
        self.server = server
        self.requests = self.failures = 0
        self._latencies = deque[float](maxlen=LATENCIES)
        self._fewest = FEWEST_LATENCIES
        self.median_s: float | None = None
        """To the first token, of the newest requests; None: too few."""

    @property
    def warm(self) -> bool:
        """It holds the model, or loads it: requests that it answers see to that."""
        return self.loaded or self.running > 0

    @property
    def beside(self) -> int:
        return self.server.running

    def answered_in(self, seconds: float) -> None:
        self._latencies.append(seconds)
        self.median_s = median(self._latencies) if len(self._latencies) >= self._fewest else None
        self._fewest = FEWEST_LATENCIES

    def forget_latencies(self) -> None:
        """Judge it by the next one alone, which is the one that tries it again."""
        self._latencies.clear()
        self._fewest = 1


class Attempt:
    """One request at one member, until it ended."""

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.began = now
        self.told = member.health.begin()


class Refusal(msgspec.Struct, frozen=True):
    """Why nobody answers: in words by member; whether it is for their limits alone; seconds after which to come back."""

    reasons: dict[str, str]
    busy: bool
    retry_after_s: float


class Router:
    """The members of one group. `now`: seconds of a monotonic clock.

    Args:
        servers: who stands behind a member, by its name; one that is not there has a server of its own.

    Attributes:
        members: by name, in the group's order. retries: made. unretried: failures that went to the client for want of budget.
    """

    def __init__(
        self,
        members: Sequence[GroupMember],
        strategy: Strategy,
        routing: GroupRouting,
        random: Random,
        servers: Mapping[str, Server] | None = None,
    ) -> None:
        servers = servers or {}
        self.members = {rules.name: Member(rules, routing, servers.get(rules.name) or Server()) for rules in members}
        self.retries = self.unretried = 0
        self._routing = routing
        self._random = random
        self._strategy = STRATEGIES[strategy](routing, random)
        self._budget = RetryBudget(routing.retry_share, routing.retries_per_second)

    def came(self) -> None:
        """A request, which allows for a share of a retry."""
        self._budget.request()

    def decide(self, wanted: Wanted, now: float, deadline: float) -> Member | float | None:
        """The member that is to be asked; or until when to wait and decide again, at the latest; None: nobody answers before the deadline.

        A wait may be infinite: until any request ends.
        """
        left = [member for member in self.members.values() if self._is_left(member, wanted)]
        # 2. Sizes are estimated only where contexts differ, since that looks at all of a prompt.
        if left and any(member.context_length != left[0].context_length for member in left):
            left = [member for member in left if wanted.fits(member.context_length)] or _largest(left)
        if not left:
            return None
        # 3.
        available = [member for member in left if member.health.may_be_asked(now)]
        free = [member for member in available if member.limits.opens_at(member.running, now) <= now]
        if not free:
            return self._otherwise(left, available, now, deadline)
        # 5.
        warm, at_once = True, self._routing.requests_before_load
        if self._strategy.warm_first and at_once is not None:
            free, warm = warm_or_cold(free, at_once)
        # 6. Who has to load the model has no conversation's beginning either.
        key = wanted.key if self._strategy.keyed and warm else None
        return self._strategy.choose(free, available, key)

    def _otherwise(self, left: Sequence[Member], available: Sequence[Member], now: float, deadline: float) -> Member | float | None:
        """Where no member that may be asked has room."""
        ejected = [member for member in left if member.health.state(now) == "ejected" and not member.health.being_tried]
        opens_at = [member.limits.opens_at(member.running, now) for member in available]
        if all(deadline < at < float("inf") for at in opens_at):
            # 3.
            last = [member for member in ejected if member.limits.opens_at(member.running, now) <= now]
            if last:
                return min(last, key=lambda member: member.health.ejected_until or now)
        # 4.
        waits = opens_at + [max(member.limits.opens_at(member.running, now), member.health.ejected_until or now) for member in ejected]
        waits += [float("inf") for member in left if member.health.being_tried]
        return None if all(deadline < at < float("inf") for at in waits) else min(waits)

    def begin(self, member: Member, now: float) -> Attempt:
        """A request goes to this member."""
        attempt = Attempt(member, now)
        member.running += 1
        member.server.running += 1
        member.requests += 1
        member.limits.took(now)
        return attempt

    def first_token(self, attempt: Attempt, now: float) -> None:
        """The member replies; from here on the request stays with it."""
        member = attempt.member
        attempt.told = member.health.ended(attempt.told, None, now, self._random.random())
        member.limits.accepted()
        member.loaded = True
        member.answered_in(now - attempt.began)
        if self._is_slow(member, now):
            member.health.eject(
                f"it takes {member.median_s:.1f} s to the first token, much longer than the others", now, self._random.random()
            )
            member.forget_latencies()

    def learned(self, member: Member, allowance: Allowance | None) -> None:
        """What its server says of its limits."""
        member.limits.told(allowance)

    def ended(self, attempt: Attempt, now: float, verdict: Verdict | None = None, why: str = "") -> None:
        """The request is over at this member.

        Args:
            verdict, why: of its error; None: it ended well, or its client went, which before the first token tells nothing.
        """
        member = attempt.member
        member.running -= 1
        member.server.running -= 1
        kind = verdict.kind if verdict is not None else None
        if verdict is not None and kind in ("failed", "busy") and (kind == "busy" or verdict.retry_after_s is not None):
            member.limits.busy(verdict.retry_after_s, now)
        if kind == "failed":
            member.failures += 1
            member.health.ended(attempt.told, why, now, self._random.random())
        elif kind in ("unfit", "too small", "refused"):
            # It said no, and thereby that it is there.
            member.health.ended(attempt.told, None, now, self._random.random())
        else:
            member.health.left(attempt.told)

    def may_retry(self, now: float) -> bool:
        """Whether the budget has a retry; it is taken then."""
        allowed = self._budget.take(now)
        self.retries += allowed
        self.unretried += not allowed
        return allowed

    def retry_delay_s(self, retries: int) -> float:
        """Before one more, after so many of the same request: full jitter (Brooker, Exponential Backoff And Jitter, 2015)."""
        return self._random.random() * self._routing.retry_delay_s * 2**retries

    def probed(self, member: Member, failure: str | None, now: float) -> None:
        """A look at a member. failure: why it does not serve; None: it does."""
        member.health.probed(failure, now, self._random.random())

    def refusal(self, wanted: Wanted, now: float) -> Refusal:
        """Why nobody answers this request."""
        reasons: dict[str, str] = {}
        back_at: list[float] = []
        busy = True
        for member in self.members.values():
            health, opens_at = member.health, member.limits.opens_at(member.running, now)
            if member.name in wanted.tried:
                reasons[member.name], busy = wanted.tried[member.name], False
            elif member.draining:
                reasons[member.name] = "it is drained"
                continue
            elif health.ejected_until is not None:
                text = f"asked again in {max(health.ejected_until - now, 0):.1f} s"
                reasons[member.name], busy = f"{health.last_failure} ({text})", False
            elif opens_at > now:
                reasons[member.name] = member.limits.why_closed(member.running, now)
            elif member.context_length is not None and member.context_length <= wanted.refused_context:
                reasons[member.name] = f"its context of {member.context_length} tokens is too small"
                continue
            back_at.append(max(opens_at if opens_at < float("inf") else now, health.ejected_until or now))
        return Refusal(reasons, busy and bool(back_at), max(min(back_at, default=now + 1.0) - now, 1.0))

    def _is_left(self, member: Member, wanted: Wanted) -> bool:
        """1."""
        if member.draining or member.name in wanted.tried:
            return False
        return not wanted.refused_context or (member.context_length or 0) > wanted.refused_context

    def _is_slow(self, member: Member, now: float) -> bool:
        if self._routing.slow_factor is None or member.median_s is None or member.median_s < SLOW_S:
            return False
        healthy = [other for other in self.members.values() if other.health.state(now) == "healthy"]
        others = [other.median_s for other in healthy if other is not member and other.median_s is not None]
        if member not in healthy or not others or len(healthy) - 1 < len(self.members) / 2:
            return False
        return member.median_s > self._routing.slow_factor * median(others)


def _largest(members: Sequence[Member]) -> list[Member]:
    """Those of the largest context."""
    most = max((member.context_length or 0 for member in members), default=0)
    return [member for member in members if member.context_length == most]
