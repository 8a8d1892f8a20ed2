"""Which replicas answer for which models, and what they hold from the start on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.fleet.simulation.figures import ModelFigures

Layout = Literal["any", "pinned", "placed"]
"""any: every replica answers for every model, and swaps.
placed: each model has some replicas, chosen so that what a replica answers for fits its memory where that is possible.
pinned: the most popular models are placed and stay; all others share the replicas that are left, and swap."""
POPULAR_WORK = 0.7
"""Pinned: the share of all work that popular models do together."""
SPARE = 1.3
"""Placed: how many times the replicas that a model's work takes it gets, since popularity is never quite what was thought."""
COPIES = 2
"""And so many where there is room, so that one may die."""


@dataclass(frozen=True)
class Placing:
    """replicas: of each model, by its key, as numbers. pinned: models that every replica keeps. holds: of each replica, at the start."""

    replicas: Sequence[Sequence[int]]
    pinned: frozenset[int]
    holds: Sequence[Sequence[int]]


def placing(layout: Layout, replicas: int, models: Sequence[ModelFigures], work: Sequence[float], memory_bytes: float) -> Placing:
    """Args:
    work: of each model, its share of the seconds that all requests take.
    """
    order = sorted(range(len(models)), key=lambda key: -work[key])
    if layout == "placed":
        holds = _placed(range(replicas), models, work, order, memory_bytes)
        return Placing(_where(models, holds), frozenset(), holds)
    if layout == "any":
        # Nothing decides, so each replica begins with other models, with popular ones more often.
        return Placing([range(replicas)] * len(models), frozenset(), [_rotated(order, number) for number in range(replicas)])
    popular = _popular(models, work, order, replicas * POPULAR_WORK * memory_bytes / COPIES)
    own = min(max(COPIES, round(replicas * sum(work[key] for key in popular))), replicas - COPIES)
    rest = [key for key in order if key not in popular]
    holds = _placed(range(own), models, work, popular, memory_bytes)
    holds += [_rotated(rest, number) for number in range(own, replicas)]
    of = _where(models, holds[:own])
    return Placing([of[key] or range(own, replicas) for key in range(len(models))], frozenset(popular), holds)


def _where(models: Sequence[ModelFigures], holds: Sequence[Sequence[int]]) -> list[list[int]]:
    """The replicas of each model."""
    of: list[list[int]] = [[] for _ in models]
    for number, keys in enumerate(holds):
        for key in keys:
            of[key].append(number)
    return of


def _popular(models: Sequence[ModelFigures], work: Sequence[float], order: Sequence[int], most_bytes: float) -> list[int]:
    """Those with the most work, up to POPULAR_WORK of it, as far as they fit."""
    found: list[int] = []
    for key in order:
        if sum(models[other].need_bytes for other in [*found, key]) <= most_bytes and sum(work[other] for other in found) < POPULAR_WORK:
            found.append(key)
    return found


def _rotated(order: Sequence[int], number: int) -> list[int]:
    """The order of models by work, from another one on at each replica: the more popular, the more replicas begin with it."""
    start = int(len(order) * ((number * 0.618034) % 1.0) ** 2)
    return [*order[start:], *order[:start]]


def _placed(
    replicas: range, models: Sequence[ModelFigures], work: Sequence[float], order: Sequence[int], memory_bytes: float
) -> list[list[int]]:
    """Models of each replica. First as many copies of each as its work takes, the largest first, which else would find no room;
    then COPIES of each, while there is room in memory. Each goes where least is to be done.
    """
    holds: list[list[int]] = [[] for _ in replicas]
    taken, busy = [0.0] * len(replicas), [0.0] * len(replicas)
    total = sum(work[key] for key in order)
    needed = {key: min(len(replicas), math.ceil(work[key] / total * len(replicas) * SPARE)) for key in order}

    def place(key: int, *, anywhere: bool) -> None:
        able = [number for number in replicas if key not in holds[number]]
        roomy = [number for number in able if taken[number] + models[key].need_bytes <= memory_bytes]
        if not roomy and not anywhere:
            return
        chosen = min(roomy, key=busy.__getitem__) if roomy else min(able, key=lambda number: (busy[number], taken[number]))
        holds[chosen].append(key)
        taken[chosen] += models[key].need_bytes
        busy[chosen] += work[key] / needed[key]

    for key in sorted(order, key=lambda key: -models[key].need_bytes):
        for _ in range(needed[key]):
            place(key, anywhere=True)
    for key in order:
        if needed[key] < min(COPIES, len(replicas)):
            place(key, anywhere=False)
    return [sorted(keys, key=order.index) for keys in holds]
