"""Rows on a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(seconds: float) -> str:
    """Such as `3 minutes ago`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def since(time_s: float) -> str:
    """How long ago a Unix time was."""
    return ago(time.time() - time_s)


def count_in_words(count: int | None) -> str:
    """Such as `124M`; `-` where it is not known."""
    if count is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")) if count >= size), (1, ""))
    value = count / size
    return f"{value:.1f}{unit}" if unit and value < 99.95 else f"{value:.0f}{unit}"
