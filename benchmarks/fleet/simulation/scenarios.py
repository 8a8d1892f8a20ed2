"""One run of a fleet, and what it showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.figures import FAMILIES, GPU_80GB, Family, Machine
from benchmarks.fleet.simulation.fleet import Fleet
from benchmarks.fleet.simulation.layouts import Layout, placing
from benchmarks.fleet.simulation.replica import Replica
from benchmarks.fleet.simulation.workload import Habits, Workload
from benchmarks.support.measures import Percentiles
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting

Fault = Literal["none", "one dies", "a tenth dies", "one is slow", "half as fast"]


@dataclass(frozen=True)
class Scenario:
    """What is run.

    Attributes:
        load: at the peak of the day, as a share of what the fleet's machines compute where batches are full and no prefix is kept.
        requests: about so many, after the fleet is warm. fault: one or a tenth dies at 0.5 of the time and is back, empty, at 0.6; one
            computes at a fifth of its speed from 0.4 on; a quarter of all computes at half its speed throughout.
        weights: those of `half as fast` get half the weight.
    """

    replicas: int
    layout: Layout = "placed"
    strategy: str = "least-loaded"
    load: float = 0.8
    requests: int = 20_000
    machine: Machine = GPU_80GB
    families: Sequence[Family] = FAMILIES
    fault: Fault = "none"
    weights: bool = False
    seed: int = 0
    habits: Habits = field(default_factory=Habits)
    routing: GroupRouting = field(default_factory=GroupRouting)


@dataclass(frozen=True)
class Result:
    """What it showed. Shares in [0, 1]; first_token in seconds; lost by why; loads, evictions: after the fleet was warm."""

    scenario: Scenario
    simulated_s: float
    requests: int
    loads: int
    evictions: int
    cold: float
    cached: float
    first_token: Percentiles
    busy: float
    lost: dict[str, int]
    retries: int


def run(scenario: Scenario) -> Result:
    """Deterministic: the same scenario gives the same result."""
    clock = Clock()
    workload = Workload(scenario.machine, scenario.families, scenario.seed, scenario.habits)
    models = workload.models
    mean_s = workload.mean_request_s()
    work = [share * workload.request_s(model) / mean_s for share, model in zip(workload.shares, models, strict=True)]
    placed = placing(scenario.layout, scenario.replicas, models, work, scenario.machine.memory_bytes)
    slow = set(range(0, scenario.replicas, 4)) if scenario.fault == "half as fast" else set[int]()
    capacity = (scenario.replicas - len(slow) / 2) / mean_s
    peak = scenario.load * capacity / scenario.habits.turns  # conversations a second
    warm_share = 0.25
    mean_rate = scenario.load * capacity * (1 + scenario.habits.low) / 2
    until = scenario.requests / mean_rate / (1 - warm_share)
    warm_at = until * warm_share

    def members(key: int) -> list[GroupMember]:
        weight = {number: 0.5 for number in slow} if scenario.weights else {}
        return [GroupMember(name=f"replica-{number}", weight=weight.get(number, 1.0)) for number in placed.replicas[key]]

    fleet = Fleet(
        clock,
        members,
        scenario.strategy,
        Random(scenario.seed + 1),
        routing=scenario.routing,
        next_turn=lambda turn: workload.next_turn(turn, clock, fleet.ask) if clock.now <= until else None,
        warm_at=warm_at,
        looks_until=until,
    )
    for number in range(scenario.replicas):
        speed = 0.5 if number in slow else 1.0
        replica = Replica(f"replica-{number}", clock, models, scenario.machine.memory_bytes, fleet, placed.pinned, speed)
        replica.warm(placed.holds[number])
        fleet.replicas[replica.name] = replica
    replicas = list(fleet.replicas.values())
    _break(scenario, clock, replicas, fleet, until)
    workload.begin(clock, peak, until, fleet.ask)
    clock.run(warm_at)
    before = [(replica.loads, replica.evictions, replica.busy_s) for replica in replicas]
    clock.run(until)
    after = [(replica.loads, replica.evictions, replica.busy_s) for replica in replicas]
    clock.run(until + 3600)
    outcome = fleet.outcome
    loads, evictions, busy_s = (sum(row[column] for row in after) - sum(row[column] for row in before) for column in range(3))
    answered = max(len(outcome.first_token_s), 1)
    lost = dict(outcome.lost)
    if (unanswered := outcome.requests - len(outcome.first_token_s) - sum(lost.values())) > 0:
        lost["not answered in an hour"] = unanswered
    return Result(
        scenario,
        until - warm_at,
        outcome.requests,
        int(loads),
        int(evictions),
        outcome.cold / answered,
        outcome.cached / max(outcome.prompt, 1),
        Percentiles.of(outcome.first_token_s),
        busy_s / (until - warm_at) / scenario.replicas,
        lost,
        outcome.retries,
    )


def _break(scenario: Scenario, clock: Clock, replicas: list[Replica], fleet: Fleet, until: float) -> None:
    """What goes wrong."""
    if scenario.fault in ("one dies", "a tenth dies"):
        dying = replicas[1:2] if scenario.fault == "one dies" else replicas[1::10]
        for replica in dying:
            clock.at(until * 0.5, replica.kill)
            clock.at(until * 0.6, lambda replica=replica: setattr(replica, "alive", True))
        fleet.probe_until(until)
    elif scenario.fault == "one is slow":
        clock.at(until * 0.4, lambda: replicas[1].change_speed(0.2))
        fleet.probe_until(until)
