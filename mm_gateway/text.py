"""Searching in text that is still growing."""

from __future__ import annotations

from collections.abc import Sequence


def held_back(text: str, strings: Sequence[str]) -> int:
    """Characters at the end of `text` that may become the beginning of one of the strings."""
    longest = max(map(len, strings), default=0)
    sizes = range(min(longest - 1, len(text)), 0, -1)
    return next((size for size in sizes if any(string.startswith(text[-size:]) for string in strings)), 0)
