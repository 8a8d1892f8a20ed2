"""The gateway before the replicas: a group for each model, by the gateway's own router, with its line, retries and probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.replica import Replica
from benchmarks.fleet.simulation.workload import Turn
from mm_gateway.backends.groups.router import Attempt, Member, Router
from mm_gateway.backends.groups.servers import Servers
from mm_gateway.backends.groups.verdicts import Verdict
from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy

HOP_S = 0.0005
"""Of a request that a gateway passes on: half a millisecond (docs/performance.md)."""
REFUSED_S = 0.001
MULTIPLEXED = "multiplexed"
"""Ray Serve's routing by model, as far as it is imitated here."""


class Multiplexed(Router):
    """What Ray Serve does for multiplexed models: of two replicas drawn from those that hold the model, the one with fewer requests of
    any model; where none holds it, of two drawn from those that hold the fewest models.

    Left out: its back-off where replicas are full, and that its routers learn of queues and models with a delay. Health is the group's.
    """

    def __init__(self, members: Sequence[GroupMember], routing: GroupRouting, random: Random, replicas: Mapping[str, Replica]) -> None:
        super().__init__(members, "least-loaded", routing, random)
        self._draw, self._replicas = random, replicas

    def decide(self, wanted: Wanted, now: float, deadline: float) -> Member | float | None:
        assert isinstance(wanted, Turn)
        key = wanted.model
        able = [member for member in self.members.values() if member.name not in wanted.tried and member.health.may_be_asked(now)]
        holding = [member for member in able if self._replicas[member.name].holds(key)]
        if not holding and able:
            fewest = min(self._replicas[member.name].held for member in able)
            holding = [member for member in able if self._replicas[member.name].held == fewest]
        if not holding:
            return super().decide(wanted, now, deadline)
        two = self._draw.sample(holding, min(2, len(holding)))
        return min(two, key=lambda member: self._replicas[member.name].running)


@dataclass
class Outcome:
    """What became of the requests that came after the fleet was warm.

    Attributes:
        first_token_s: to the first token, of those that were answered. lost: by why. retries: made. cold: requests that came where their
        model was not in memory. prompt, cached: tokens of those answered, and those not computed.
    """

    first_token_s: list[float] = field(default_factory=list[float])
    requests: int = 0
    lost: dict[str, int] = field(default_factory=dict[str, int])
    retries: int = 0
    cold: int = 0
    prompt: int = 0
    cached: int = 0


class Fleet:
    """Replicas and the groups before them.

    Args:
        replicas: by name. members: of each model's group, by the model's key. strategy: of every group, or MULTIPLEXED.
        next_turn: called with each turn that ended well. warm_at: when `outcome` begins to be counted.
        looks_until: when nobody looks at members any more.
    """

    def __init__(
        self,
        clock: Clock,
        members: Callable[[int], Sequence[GroupMember]],
        strategy: Strategy | str,
        random: Random,
        *,
        routing: GroupRouting | None = None,
        next_turn: Callable[[Turn], None] = lambda turn: None,
        warm_at: float = 0.0,
        looks_until: float = 0.0,
    ) -> None:
        self.replicas: dict[str, Replica] = {}
        self.outcome = Outcome()
        self._clock, self._members, self._strategy, self._random = clock, members, strategy, random
        self._routing = routing or GroupRouting()
        self._next_turn, self._warm_at, self._looks_until = next_turn, warm_at, looks_until
        self._groups: dict[int, Router] = {}
        self._lines: dict[int, dict[Turn, float]] = {}
        self._attempts: dict[Turn, Attempt] = {}
        self._servers = Servers()

    def ask(self, turn: Turn) -> None:
        """A client sends a request."""
        if turn.began >= self._warm_at:
            self.outcome.requests += 1
        self._group(turn.model).came()
        self._route(turn, self._clock.now + self._routing.max_wait_s)

    def probe_until(self, until: float) -> None:
        """Look at members as the gateway does. Only those that do not answer or are ejected: a look at others changes nothing here."""

        def look() -> None:
            now = self._clock.now
            for key, group in self._groups.items():
                for member in group.members.values():
                    alive = self.replicas[member.name].alive
                    if not alive or member.health.ejected_until is not None:
                        group.probed(member, None if alive else "refuses the connection", now)
                self._offer(key)
            if now < until:
                self._clock.after(self._routing.probe_interval_s or 10.0, look)

        self._clock.after(self._routing.probe_interval_s or 10.0, look)

    def began(self, turn: Turn) -> None:
        now = self._clock.now
        attempt = self._attempts[turn]
        turn.first_token = now - turn.began + HOP_S
        self._group(turn.model).first_token(attempt, now)
        self._offer(turn.model)

    def done(self, turn: Turn) -> None:
        self._group(turn.model).ended(self._attempts.pop(turn), self._clock.now)
        if turn.began >= self._warm_at:
            outcome = self.outcome
            outcome.first_token_s.append(turn.first_token)
            outcome.prompt += turn.prompt
            outcome.cached += turn.cached
            outcome.cold += turn.cold
        self._offer(turn.model)
        self._next_turn(turn)

    def failed(self, turn: Turn, why: str) -> None:
        """As `Group` does: another member is asked where the reply has not begun, while the budget of retries lasts."""
        group, now = self._group(turn.model), self._clock.now
        attempt = self._attempts.pop(turn)
        group.ended(attempt, now, Verdict("failed"), why)
        if not math.isnan(turn.first_token):
            self._lose(turn, "amid the reply")
        else:
            turn.tried[attempt.member.name] = why
            if group.may_retry(now):
                wait_s = group.retry_delay_s(turn.retries)
                turn.retries += 1
                if turn.began >= self._warm_at:
                    self.outcome.retries += 1
                self._clock.after(wait_s, partial(self._route, turn, now + self._routing.max_wait_s))
            else:
                self._lose(turn, "no retries left")
        self._offer(turn.model)

    def _route(self, turn: Turn, deadline: float) -> None:
        decision = self._group(turn.model).decide(turn, self._clock.now, deadline)
        if isinstance(decision, Member):
            self._send(turn, decision)
            return
        self._line(turn.model)[turn] = deadline
        self._wait(turn, decision)

    def _wait(self, turn: Turn, until: float | None) -> None:
        """In the line, until the router wants to be asked again."""
        deadline = self._line(turn.model)[turn]
        if until is None or self._clock.now >= deadline:
            del self._line(turn.model)[turn]
            self._lose(turn, "nobody answers")
            return

        def again() -> None:
            line = self._line(turn.model)
            if turn in line:
                self._offer(turn.model)
            if turn not in line:
                return
            decision = self._group(turn.model).decide(turn, self._clock.now, deadline)
            if isinstance(decision, Member):
                del line[turn]
                self._send(turn, decision)
            else:
                self._wait(turn, decision)

        self._clock.at(min(until, deadline), again)

    def _offer(self, key: int) -> None:
        """What became free, to those who wait, the first one first; as `Places` does."""
        line = self._lines.get(key)
        if not line:
            return
        for turn, deadline in list(line.items()):
            decision = self._group(key).decide(turn, self._clock.now, deadline)
            if isinstance(decision, Member):
                del line[turn]
                self._send(turn, decision)
            elif not turn.tried:
                break

    def _send(self, turn: Turn, member: Member) -> None:
        self._attempts[turn] = self._group(turn.model).begin(member, self._clock.now)
        replica = self.replicas[member.name]
        self._clock.after(HOP_S if replica.alive else REFUSED_S, partial(replica.submit, turn))

    def _lose(self, turn: Turn, why: str) -> None:
        if turn.began >= self._warm_at:
            self.outcome.lost[why] = self.outcome.lost.get(why, 0) + 1

    def _group(self, key: int) -> Router:
        group = self._groups.get(key)
        if group is None:
            members = self._members(key)
            if self._strategy == MULTIPLEXED:
                group = Multiplexed(members, self._routing, self._random, self.replicas)
            else:
                servers = {member.name: self._servers.at(member.name) for member in members}
                group = Router(members, self._strategy, self._routing, self._random, servers)  # type: ignore[arg-type]
            self._groups[key] = group
            self._look(key)
        return group

    def _look(self, key: int) -> None:
        """At what members hold, as often as the gateway does; in between, it learns of what it asks them for alone."""
        for member in self._groups[key].members.values():
            member.loaded = self.replicas[member.name].holds(key)
        if self._clock.now < self._looks_until:
            self._clock.after(self._routing.probe_interval_s or math.inf, partial(self._look, key))

    def _line(self, key: int) -> dict[Turn, float]:
        return self._lines.setdefault(key, {})
