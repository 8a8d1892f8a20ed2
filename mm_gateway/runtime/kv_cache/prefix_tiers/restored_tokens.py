"""How much came back from the tiers; knows no tensors, since it is told to processes without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RestoredTokens:
    """Tokens whose keys and values came back from a tier in place of being computed, by where they were."""

    memory: int = 0
    disk: int = 0
