"""What is run for docs/fleet.md, and how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from benchmarks.fleet.simulation.figures import CPU_64GB, SMALL_FAMILIES
from benchmarks.fleet.simulation.fleet import MULTIPLEXED
from benchmarks.fleet.simulation.scenarios import Fault, Result, Scenario
from benchmarks.fleet.simulation.workload import Turn
from benchmarks.support.tables import markdown_table
from mm_gateway.backends.groups.router import Member, Router
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy

SIZES = {10: (2_000, 0.5), 100: (6_000, 0.8), 1000: (12_000, 0.8)}
"""Replicas; requests of a run; load at the peak, where a table has no other: ten do not reach more."""


UNTOLD = GroupRouting(requests_before_load=None)
"""Who has a model in memory does not count."""


def _sized(replicas: int, **fields: object) -> Scenario:
    requests, load = SIZES[replicas]
    return replace(Scenario(replicas, requests=requests, load=load), **fields)


Cells = Callable[[Result], Sequence[object]]


@dataclass(frozen=True)
class Table:
    """head: of its first columns; cells: of a result, for them. The others are the same in all tables."""

    head: Sequence[str]
    cells: Cells
    scenarios: Sequence[Scenario]

    def shown(self, results: Sequence[Result]) -> str:
        head = [*self.head, "loads", "came cold", "prefix hits", "TTFT p50, s", "p95, s", "p99, s", "busy", "lost", "retried"]
        return markdown_table(head, [[*self.cells(result), *measured(result)] for result in results])


def measured(result: Result) -> list[object]:
    """What every table shows of a result; loads, lost and retried for each thousand requests."""
    thousands = max(result.requests, 1) / 1000
    first = result.first_token
    return [
        result.loads / thousands,
        f"{result.cold:.1%}",
        f"{result.cached:.0%}",
        first.p50,
        first.p95,
        first.p99,
        f"{result.busy:.0%}",
        sum(result.lost.values()) / thousands,
        result.retries / thousands,
    ]


def _of(*names: str) -> Cells:
    return lambda result: [getattr(result.scenario, name) for name in names]


def _load(result: Result) -> Sequence[object]:
    return [result.scenario.replicas, result.scenario.load]


def _layout(result: Result) -> Sequence[object]:
    scenario = result.scenario
    strategies = {MULTIPLEXED: ", Ray's", "prefix-aware": ", prefix-aware"}
    return [scenario.replicas, _told(result)[1] + strategies.get(scenario.strategy, "")]


def _told(result: Result) -> tuple[int, str]:
    scenario = result.scenario
    return scenario.replicas, scenario.layout + (", untold" if scenario.routing == UNTOLD else "")


def _weights(result: Result) -> Sequence[object]:
    return [result.scenario.strategy, "0.5 and 1" if result.scenario.weights else "all 1"]


FAULTS: Sequence[Fault] = ("none", "one dies", "a tenth dies", "one is slow")

TABLES = {
    "fleet-layouts": Table(
        ["replicas", "layout"],
        _layout,
        [
            _sized(replicas, layout=layout, strategy=strategy, routing=routing)
            for replicas in SIZES
            for layout, strategy, routing in (
                ("any", "least-loaded", UNTOLD),
                ("any", "least-loaded", GroupRouting()),
                ("any", "prefix-aware", GroupRouting()),
                ("any", MULTIPLEXED, GroupRouting()),
                ("pinned", "least-loaded", GroupRouting()),
                ("placed", "least-loaded", GroupRouting()),
            )
        ],
    ),
    "fleet-strategies": Table(
        ["replicas", "strategy"],
        _of("replicas", "strategy"),
        [_sized(replicas, strategy=strategy) for replicas in SIZES for strategy in ("round-robin", "least-loaded", "prefix-aware")],
    ),
    "fleet-loads": Table(
        ["replicas", "load at the peak"],
        _load,
        [_sized(replicas, strategy="prefix-aware", load=load) for replicas in SIZES for load in (0.5, 0.8, 0.95)],
    ),
    "fleet-faults": Table(
        ["replicas", "what goes wrong"],
        _of("replicas", "fault"),
        [_sized(replicas, strategy="prefix-aware", fault=fault) for replicas in (10, 100) for fault in FAULTS],
    ),
    "fleet-weights": Table(
        ["strategy", "weights"],
        _weights,
        [
            _sized(100, strategy=strategy, weights=weights, fault="half as fast")
            for strategy, weights in (("round-robin", False), ("weighted", True), ("least-loaded", False), ("least-loaded", True))
        ],
    ),
    "fleet-cpus": Table(
        ["replicas", "layout"],
        _told,
        [
            _sized(
                replicas,
                layout=layout,
                strategy="prefix-aware",
                machine=CPU_64GB,
                families=SMALL_FAMILIES,
                requests=requests,
                routing=routing,
            )
            for replicas, requests in ((10, 1_500), (100, 6_000))
            for layout, routing in (("any", UNTOLD), ("any", GroupRouting()), ("placed", GroupRouting()))
        ],
    ),
}


def decision_us(strategy: Strategy, members: int, times: int = 300) -> float:
    """Microseconds in which a group's router chooses a member, and counts the request in and out."""
    router = Router([GroupMember(name=f"replica-{number}") for number in range(members)], strategy, GroupRouting(), Random(0))
    turns = [Turn(0, number, 0, 10, 10, 0.0) for number in range(times)]
    started = time.process_time()
    for turn in turns:
        member = router.decide(turn, 1.0, 31.0)
        assert isinstance(member, Member)
        router.ended(router.begin(member, 1.0), 1.0)
    return (time.process_time() - started) / times * 1e6


def decisions() -> str:
    """What choosing costs, by members of a group."""
    strategies: tuple[Strategy, ...] = ("round-robin", "least-loaded", "prefix-aware")
    rows = [[members, *(decision_us(strategy, members) for strategy in strategies)] for members in (2, 10, 100, 1000)]
    return markdown_table(["members", *(f"{strategy}, µs" for strategy in strategies)], rows)
