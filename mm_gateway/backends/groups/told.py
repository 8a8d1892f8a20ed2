"""What listings show of a group's members; made when somebody reads it, since every request asks for the model's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mm_gateway.backends.groups.router import Member
from mm_gateway.core import ModelInfo

MAX_FAILURE = 300
"""Characters of what failed last."""


class Details(Mapping[str, Any]):
    """Details of a model that are made on first use. make: makes them; whoever holds them sees the state of that moment."""

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make
        self._made: Mapping[str, Any] | None = None

    def _all(self) -> Mapping[str, Any]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def member_told(member: Member, info: ModelInfo, now: float) -> dict[str, Any]:
    """One member, as JSON values."""
    health = member.health
    told: dict[str, Any] = {
        "id": member.name,
        "backend": info.backend,
        "state": info.state,
        "health": health.state(now),
        "draining": member.draining,
        "running": member.running,
        "requests": member.requests,
        "failures": member.failures,
        "ejections": health.ejections,
        "context_length": info.context_length,
    }
    if health.last_failure:
        told["last_failure"] = health.last_failure[:MAX_FAILURE]
    return told
