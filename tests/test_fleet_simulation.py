"""The simulation of fleets: against formulas where there are some, and what must hold whatever comes."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.figures import CPU_64GB, FAMILIES, GPU_80GB, SMALL_FAMILIES, ModelFigures
from benchmarks.fleet.simulation.fleet import MULTIPLEXED, Fleet
from benchmarks.fleet.simulation.layouts import COPIES, Layout, placing
from benchmarks.fleet.simulation.replica import Replica
from benchmarks.fleet.simulation.scenarios import Fault, Scenario, run
from benchmarks.fleet.simulation.workload import Turn, Workload
from benchmarks.support.measures import percentile
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting


def erlang_c(servers: int, offered: float) -> float:
    """The probability to wait in M/M/c. offered: load in servers."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


class OneAtATime(Replica):
    """A server that takes an exponential time of mean one second for each request."""

    def __init__(self, name: str, clock: Clock, fleet: Fleet, random: Random) -> None:
        self.name, self.alive = name, True
        self._clock, self._fleet, self._random = clock, fleet, random

    def holds(self, key: Hashable) -> bool:
        return True

    def submit(self, turn: Turn) -> None:
        self._fleet.began(turn)
        self._clock.after(self._random.expovariate(1.0), partial(self._fleet.done, turn))


@pytest.mark.parametrize("strategy", ["least-loaded", "round-robin"])
def test_a_line_before_equal_servers_is_that_of_erlangs_formula(strategy: str) -> None:
    servers, load, requests = 4, 0.7, 8_000
    clock, random = Clock(), Random(1)
    members = [GroupMember(name=f"m{number}", max_requests=1) for number in range(servers)]
    routing = GroupRouting(max_wait_s=1e6, slow_factor=None)
    fleet = Fleet(clock, lambda key: members, strategy, random, routing=routing)
    fleet.replicas |= {member.name: OneAtATime(member.name, clock, fleet, random) for member in members}
    at = 0.0
    for number in range(requests):
        at += random.expovariate(servers * load)
        clock.at(at, partial(fleet.ask, Turn(0, number, 0, 1, 1, at)))
    clock.run()
    waits = fleet.outcome.first_token_s
    waits_at_all = erlang_c(servers, servers * load)
    drains = servers * (1 - load)
    assert len(waits) == requests and not fleet.outcome.lost
    assert sum(wait > 0.01 for wait in waits) / requests == pytest.approx(waits_at_all, rel=0.1)
    assert sum(waits) / requests == pytest.approx(waits_at_all / drains, rel=0.15)
    for share in (0.8, 0.9, 0.95):
        assert percentile(waits, share) == pytest.approx(math.log(waits_at_all / (1 - share)) / drains, rel=0.15)


class Times:
    """Whom a replica alone tells."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.took_s: list[float] = []

    def began(self, turn: Turn) -> None:
        pass

    def done(self, turn: Turn) -> None:
        self.took_s.append(self._clock.now - turn.began)

    def failed(self, turn: Turn, why: str) -> None:
        raise AssertionError(why)


@pytest.mark.parametrize("lengths", ["equal", "unequal"])
def test_a_replica_whose_batches_gain_nothing_shares_its_time_equally(lengths: str) -> None:
    """The mean of processor sharing does not depend on how lengths are distributed: S / (1 - load)."""
    clock, random, load = Clock(), Random(5), 0.5
    model = ModelFigures(0, "", 1e9, 1, 10**9, 0.01, 0.0, 0.0, beside=1.0)
    told = Times(clock)
    replica = Replica("one", clock, [model], 10e9, told)
    replica.warm([0])
    at = 0.0
    for number in range(6_000):
        at += random.expovariate(load)
        output = 100 if lengths == "equal" else 25 if random.random() < 2 / 3 else 250
        clock.at(at, partial(replica.submit, Turn(0, number, 0, 1, output, at)))
    clock.run()
    assert len(told.took_s) == 6_000
    assert sum(told.took_s) / 6_000 == pytest.approx(1 / (1 - load), rel=0.1)


def test_the_same_seed_gives_the_same_result() -> None:
    scenario = Scenario(12, "pinned", requests=80, fault="a tenth dies")
    assert run(scenario) == run(scenario) != run(replace(scenario, seed=1))


@pytest.mark.parametrize(
    ("layout", "fault"),
    [("any", "none"), ("any", "one dies"), ("pinned", "a tenth dies"), ("placed", "one is slow"), ("placed", "half as fast")],
)
def test_every_request_is_answered_or_lost_for_a_reason(layout: Layout, fault: Fault) -> None:
    result = run(Scenario(12, layout, "prefix-aware", 0.6, 100, fault=fault))
    assert result.requests > 40
    assert "not answered in an hour" not in result.lost
    assert 0 < result.busy <= 1 and 0 <= result.cold <= 1 and 0 <= result.cached < 1


@pytest.mark.parametrize("strategy", ["least-loaded", MULTIPLEXED])
def test_a_replica_that_dies_costs_the_replies_that_it_writes_and_no_more(strategy: str) -> None:
    scenario = Scenario(8, "any", strategy, 0.5, 200, CPU_64GB, SMALL_FAMILIES)
    whole, broken = run(scenario), run(replace(scenario, fault="one dies"))
    assert not whole.lost and not whole.retries
    assert set(broken.lost) <= {"amid the reply"}
    assert broken.retries and sum(broken.lost.values()) < 40


def test_prefixes_are_found_where_conversations_stay() -> None:
    scenario = Scenario(60, "placed", load=0.5, requests=1200)
    spread, kept = (run(replace(scenario, strategy=strategy)) for strategy in ("round-robin", "prefix-aware"))
    assert kept.cached > spread.cached + 0.1
    assert kept.first_token.p50 < spread.first_token.p50


@pytest.mark.parametrize("replicas", [10, 100])
@pytest.mark.parametrize("layout", ["any", "pinned", "placed"])
def test_every_model_has_replicas_and_what_is_placed_fits(layout: Layout, replicas: int) -> None:
    workload = Workload(GPU_80GB, FAMILIES, 0)
    placed = placing(layout, replicas, workload.models, workload.shares, GPU_80GB.memory_bytes)
    assert all(placed.replicas)
    assert len(placed.holds) == replicas
    if layout == "placed" and replicas >= 100:
        held = [sum(workload.models[key].need_bytes for key in keys) for keys in placed.holds]
        assert max(held) <= GPU_80GB.memory_bytes
        popular = placed.replicas[: len(workload.models) // 4]
        assert all(len(set(numbers)) >= COPIES for numbers in popular)
    if layout == "pinned":
        assert 0 < len(placed.pinned) < len(workload.models)
