"""Groups of simulated members in any trouble: no request is lost that a member could have served, bounds hold, members come back.

The clock is simulated too. A tenth of `--fuzz-cases N` scenarios, each of up to 15 requests.
"""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest

from mm_gateway.backends.groups.backend import Group
from mm_gateway.backends.groups.strategies import STRATEGIES
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ReplyFields, TextDelta
from mm_gateway.errors import GatewayError, ModelUnavailableError, RateLimitError
from tests.support.simulated_clock import simulate
from tests.support.simulated_members import Mode, Phase, SimulatedMember, chat, whole_text

MODES: tuple[Mode, ...] = ("serves", "serves", "refuses", "stalls", "cuts", "is busy", "is slow", "answers nonsense")
ROUTINGS = (
    GroupRouting(first_token_timeout_s=5.0, max_ejection_s=20.0, max_wait_s=30.0, retries_per_second=2.0),
    # Nobody waits for the end of an ejection.
    GroupRouting(first_token_timeout_s=5.0, ejection_s=20.0, max_ejection_s=60.0, eject_after=1, max_wait_s=8.0, retries_per_second=2.0),
)
TROUBLE_S = 40.0
CALM_S = 80.0
"""Longer than any ejection and any time that a busy member asks for."""


class Outcome(msgspec.Struct):
    """What became of one request. paused: members that had said before that they take nothing for a while."""

    id: str
    begun: float
    paused: tuple[str, ...]
    ended: float = 0.0
    text: str = ""
    fields: tuple[ReplyFields, ...] = ()
    error: GatewayError | None = None
    left: bool = False


class World:
    """One scenario: a group, its members with their plans, and what became of its requests."""

    def __init__(self, seed: int, strategy: Strategy) -> None:
        random = self.random = Random(seed)
        count = random.randint(1, 4)
        self.members = {name: SimulatedMember(name, self._plan(), random.uniform(0.02, 0.2)) for name in "abcd"[:count]}
        self.rules = [
            GroupMember(
                name=name,
                weight=random.choice((0.5, 1.0, 3.0)),
                max_requests=random.choice((None, None, 1, 3)),
                requests_per_minute=random.choice((None, None, None, 20)),
            )
            for name in self.members
        ]
        self.routing = random.choice(ROUTINGS)
        config = ModelConfig(model_name="all", backend="group", members=tuple(self.rules), strategy=strategy, routing=self.routing)
        clock = asyncio.get_running_loop().time
        self.group = Group("all", config, self.members, 0, random=Random(seed), clock=clock)
        self.outcomes: list[Outcome] = []

    def _plan(self) -> list[Phase]:
        at, phases = 0.0, []
        while at < TROUBLE_S:
            phases.append(Phase(at, self.random.choice(MODES), self.random.choice((None, 0.5, 3.0, 15.0))))
            at += self.random.uniform(1.0, TROUBLE_S)
        return [*phases, Phase(TROUBLE_S, "serves")]

    async def run(self) -> None:
        clients = [asyncio.create_task(self._client(f"r{number}")) for number in range(self.random.randint(1, 15))]
        await asyncio.wait(clients)
        for client in clients:
            client.result()

    async def _client(self, id: str) -> None:
        await asyncio.sleep(self.random.uniform(0, TROUBLE_S))
        asking = asyncio.create_task(self.ask(id))
        if self.random.random() < 0.1:
            await asyncio.wait([asking], timeout=self.random.uniform(0, 3.0))
            asking.cancel()
        await asyncio.wait([asking])

    async def ask(self, id: str, conversations: int = 5) -> Outcome:
        now = asyncio.get_running_loop().time
        paused = tuple(name for name, member in self.group.router.members.items() if member.limits.paused_until > now())
        outcome = Outcome(id, now(), paused)
        self.outcomes.append(outcome)
        try:
            async for event in self.group.generate(chat(id, f"conversation {self.random.randint(1, conversations)}")):
                if isinstance(event, TextDelta):
                    outcome.text += event.text
                if isinstance(event, ReplyFields):
                    outcome.fields += (event,)
        except GatewayError as error:
            outcome.error = error
        except asyncio.CancelledError:
            outcome.left = True
        outcome.ended = now()
        return outcome

    def check_outcomes(self) -> None:
        for outcome in self.outcomes:
            served_by = outcome.text.split("/")[1] if outcome.text else None
            if served_by is not None:
                # One member's pieces in order, each once, and nothing of another one.
                whole = whole_text(outcome.id, served_by)
                assert outcome.text == whole if outcome.error is None and not outcome.left else whole.startswith(outcome.text)
                assert outcome.fields == (ReplyFields({"served_by": served_by}),)
            elif outcome.error is not None:
                self._check_lost(outcome)
            else:
                assert outcome.left

    def _check_lost(self, outcome: Outcome) -> None:
        assert not outcome.fields
        if not isinstance(outcome.error, ModelUnavailableError | RateLimitError):
            assert self.group.router.unretried > 0, "a member's own error is shown where the budget of retries is spent"
            return
        assert outcome.error.retry_after_s is not None
        assert outcome.error.retry_after_s >= 1.0
        waited_s = outcome.ended - outcome.begun
        for rules in self.rules:
            if not self.members[rules.name].serves_throughout(outcome.begun, outcome.ended) or rules.name in outcome.paused:
                continue
            limited = rules.requests_per_minute is not None or (
                rules.max_requests is not None and waited_s >= self.routing.max_wait_s - 0.01
            )
            assert limited or self.group.router.unretried, f"{outcome.id} was lost, and {rules.name} could have served it"

    def check_bounds(self) -> None:
        for rules in self.rules:
            member = self.members[rules.name]
            assert rules.max_requests is None or member.peak <= rules.max_requests
            if rules.requests_per_minute is not None:
                for index, at in enumerate(member.starts):
                    in_a_minute = sum(at <= start < at + 60 for start in member.starts[index:])
                    assert in_a_minute <= 2 * rules.requests_per_minute
        router, seconds = self.group.router, asyncio.get_running_loop().time()
        most = self.routing.retry_share * (len(self.outcomes) + 100) + self.routing.retries_per_second * (seconds + 10)
        assert router.retries <= most

    def check_nothing_is_held(self) -> None:
        assert self.group.waiting == 0
        assert all(member.running == 0 for member in self.group.router.members.values())
        assert all(member.running == 0 for member in self.members.values())
        assert all(not member.health.being_tried for member in self.group.router.members.values())


async def scenario(seed: int, strategy: Strategy) -> World:
    world = World(seed, strategy)
    await world.run()
    world.check_outcomes()
    world.check_bounds()
    world.check_nothing_is_held()
    return world


async def recovery(seed: int, strategy: Strategy) -> None:
    """When all members serve again, every request is served, and every member is asked again."""
    world = await scenario(seed, strategy)
    await asyncio.sleep(max(TROUBLE_S + CALM_S - asyncio.get_running_loop().time(), 0))
    # Nobody asks the later ones of a fallback while the first serves.
    wanted = list(world.group.router.members.values())[: 1 if strategy == "fallback" else None]
    for number in range(400):
        await asyncio.sleep(3.5)  # below every limit of requests a minute
        assert (await world.ask(f"calm{number}", 10_000)).error is None
        if number > 10 and all(member.health.ejected_until is None for member in wanted):
            break
    else:
        raise AssertionError("a member that serves again was not asked again")
    world.check_nothing_is_held()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_request_is_lost_that_a_member_could_have_served(strategy: Strategy, fuzz_cases: int) -> None:
    ejections = retries = lost = 0
    for seed in range(fuzz_cases // 10 // len(STRATEGIES)):
        try:
            world = simulate(scenario(seed, strategy))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        ejections += sum(member.health.ejections for member in world.group.router.members.values())
        retries += world.group.router.retries
        lost += sum(outcome.error is not None and not outcome.text for outcome in world.outcomes)
    assert fuzz_cases < 5_000 or min(ejections, retries, lost) > 20  # there is trouble


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_serve_again_are_asked_again(strategy: Strategy, fuzz_cases: int) -> None:
    for seed in range(fuzz_cases // 500):
        try:
            simulate(recovery(seed, strategy))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
