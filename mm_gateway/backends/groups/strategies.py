"""Which of the members that can take a request gets it. A strategy is a class and a row in the table; pure, randomness is handed in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from random import Random
from typing import Protocol, TypeVar

from mm_gateway.configuration.group_settings import GroupRouting, Strategy


class Load(Protocol):
    """What a strategy knows of a member."""

    name: str
    weight: float
    running: int
    """Requests of this group that it answers now."""

    @property
    def warm(self) -> bool:
        """Whether its model is in memory, or soon will be, as far as is known."""
        ...

    @property
    def beside(self) -> int:
        """Requests of all groups that its server answers now."""
        ...


M = TypeVar("M", bound=Load)


class Choosing(Protocol):
    keyed: bool
    """Whether it looks at keys, which take time to compute."""
    warm_first: bool
    """Whether it is asked to choose among members that hold the model, where there are any; else the entry says who gets what."""

    def __init__(self, routing: GroupRouting, random: Random) -> None: ...

    def choose(self, free: Sequence[M], available: Sequence[M], key: int | None) -> M:
        """The one that is asked.

        Args:
            free: those that can take the request now, in the group's order; at least one.
            available: those beside which the load is measured: `free`, and those that are at their limits.
            key: of the conversation's beginning, 64 bits; None: it has none.
        """
        ...


class LeastLoaded:
    """The fewest requests for its weight, between equals the one whose server has the fewest of all groups; then chance decides, so that
    several gateways do not all take the first."""

    keyed = False
    warm_first = True

    def __init__(self, routing: GroupRouting, random: Random) -> None:
        self._random = random

    def choose(self, free: Sequence[M], available: Sequence[M], key: int | None) -> M:
        return min(free, key=lambda member: (member.running / member.weight, member.beside, self._random.random()))


class Weighted:
    """Turns by weight, spread evenly: nginx's smooth weighted round-robin. No member that is free gets two turns of another's."""

    keyed = False
    warm_first = False

    def __init__(self, routing: GroupRouting, random: Random) -> None:
        self._due: dict[str, float] = {}

    def choose(self, free: Sequence[M], available: Sequence[M], key: int | None) -> M:
        for member in free:
            self._due[member.name] = self._due.get(member.name, 0.0) + self._weight(member)
        chosen = max(free, key=lambda member: self._due[member.name])
        self._due[chosen.name] -= sum(map(self._weight, free))
        return chosen

    def _weight(self, member: Load) -> float:
        return member.weight


class RoundRobin(Weighted):
    """One after the other."""

    def _weight(self, member: Load) -> float:
        return 1.0


class Fallback:
    """The first in the group's order."""

    keyed = False
    warm_first = False

    def __init__(self, routing: GroupRouting, random: Random) -> None:
        pass

    def choose(self, free: Sequence[M], available: Sequence[M], key: int | None) -> M:
        return free[0]


class PrefixAware:
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016, https://arxiv.org/abs/1608.01350).

    A conversation's member is the first of the order that its key gives; where that one has more than `load_factor` times its share of
    all requests, the next one. The order is that of weighted rendezvous hashing (Thaler, Ravishankar 1998): when a member comes or goes,
    only its own conversations move, and they spread over all others. Without a key the least loaded one is asked.
    """

    keyed = True
    warm_first = True

    def __init__(self, routing: GroupRouting, random: Random) -> None:
        self._factor = routing.load_factor
        self._least_loaded = LeastLoaded(routing, random)
        self._seeds: dict[str, int] = {}

    def choose(self, free: Sequence[M], available: Sequence[M], key: int | None) -> M:
        if key is None:
            return self._least_loaded.choose(free, available, key)
        requests = 1 + sum(member.running for member in available)
        share = self._factor * requests / sum(member.weight for member in available)
        below = [member for member in free if member.running < math.ceil(share * member.weight)]
        if not below:
            return self._least_loaded.choose(free, available, key)
        return max(below, key=lambda member: self._score(member, key))

    def _score(self, member: Load, key: int) -> float:
        seed = self._seeds.get(member.name)
        if seed is None:
            seed = self._seeds[member.name] = int.from_bytes(blake2b(member.name.encode(), digest_size=8).digest())
        # Of 64 bits, as many as a float between 0 and 1 tells apart; for such a u, -w / ln(u) is the largest in w of all weights' cases.
        return -member.weight / math.log(((_mixed(key ^ seed) >> 12) + 0.5) / 2**52)


def warm_or_cold(free: Sequence[M], at_once: int) -> tuple[Sequence[M], bool]:
    """Those of whom one is to be chosen, and whether they hold the model.

    Members that hold it come first while one of them answers fewer than `at_once` requests for its weight; then those that would have to
    load it; then all. So a model is loaded where it is worth the time, as bounded loads have it: the bound counts requests, not shares of
    them, since a batch computes several nearly as fast as one, and a load takes as long as many replies. Ray Serve prefers replicas that
    hold the model likewise (https://docs.ray.io/en/latest/serve/model-multiplexing.html).
    """
    warm = [member for member in free if member.warm]
    if any(member.running < at_once * member.weight for member in warm):
        return warm, True
    cold = [member for member in free if not member.warm]
    return (cold, False) if cold else (free, True)


def _mixed(number: int) -> int:
    """64 bits, of which each depends on all of the given ones (the end of splitmix64, Steele et al. 2014)."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) % 2**64
    return number ^ (number >> 31)


STRATEGIES: Mapping[Strategy, type[Choosing]] = {
    "least-loaded": LeastLoaded,
    "round-robin": RoundRobin,
    "weighted": Weighted,
    "fallback": Fallback,
    "prefix-aware": PrefixAware,
}
