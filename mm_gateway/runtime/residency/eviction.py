"""Which models have to leave so that another one fits: a pure function, apart from everything that does it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in memory, as the policy sees it.

    Attributes:
        bytes: on the device in question; 0 for a model on another device, whose leaving only frees a place.
        in_use: leased, loading or already leaving. asked_for: somebody waits for it.
        idle_s: seconds since its last use. expired_s: seconds since its TTL ended, None: not ended. reload_s: what bringing it back costs.
    """

    key: Hashable
    bytes: int
    in_use: bool
    pinned: bool
    asked_for: bool
    idle_s: float
    expired_s: float | None
    reload_s: float


def choose_victims(
    candidates: Sequence[Candidate], *, free_bytes: int, free_places: int, may_take_asked_for: bool = False
) -> list[Hashable] | None:
    """The models to evict, in order, so that `free_bytes` more bytes and `free_places` more places are there.

    1. A pinned model stays.
    2. A model in use (leased, loading, leaving) stays.
    3. A model that somebody waits for stays, unless `may_take_asked_for`; then it goes last.
    4. Models whose TTL has ended go first, the longest ended first.
    5. Then the one that was idle longest for what bringing it back costs: idle seconds / reload seconds, largest first.
    6. Who need not go after all, because those chosen after it free enough, stays.

    Returns:
        None where even all that may go do not free enough: then nobody should go.
    """
    able = [c for c in candidates if not c.pinned and not c.in_use and (may_take_asked_for or not c.asked_for)]  # 1, 2, 3

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        if candidate.expired_s is not None:
            return candidate.asked_for, False, -candidate.expired_s  # 4
        return candidate.asked_for, True, -candidate.idle_s / max(candidate.reload_s, 1e-3)  # 5

    chosen: list[Candidate] = []
    for candidate in sorted(able, key=rank):
        if _enough(chosen, free_bytes, free_places):
            break
        if candidate.bytes or len(chosen) < free_places:
            chosen.append(candidate)
    if not _enough(chosen, free_bytes, free_places):
        return None
    for candidate in list(chosen):  # 6
        rest = [other for other in chosen if other is not candidate]
        if _enough(rest, free_bytes, free_places):
            chosen = rest
    return [candidate.key for candidate in chosen]


def _enough(chosen: Sequence[Candidate], free_bytes: int, free_places: int) -> bool:
    return sum(candidate.bytes for candidate in chosen) >= free_bytes and len(chosen) >= free_places
