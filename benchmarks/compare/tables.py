"""Tables of what a comparison measured: every row of one model, and the ratios of all for docs/performance.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from benchmarks.compare.cells import Cell
from benchmarks.compare.records import Context, Failed, Measured, Records, Started
from benchmarks.peers.gateway import NAME as OURS
from benchmarks.peers.server import PRECISIONS
from benchmarks.support.measures import median, ratio
from benchmarks.support.tables import markdown_table

HEAD = (
    *("precision", "workload", "server", "tok/s", "ours / theirs", "TTFT p95, ms", "ours / theirs", "between tokens p50, ms"),
    *("CPU ms a token", "memory, MB", "at most", "of the memory's limit"),
)


def _unique(names: Iterable) -> list:
    return list(dict.fromkeys(names))


def _ratios(records: Records, precision: str, server: str, cell: Cell, field: str) -> list[float]:
    """Ours over theirs, round by round, where both have such a figure."""
    theirs = {each.round: getattr(each, field) for each in records.of(precision, server, cell)}
    ours = records.of(precision, OURS, cell)
    found = [ratio(getattr(each, field), theirs[each.round]) for each in ours if each.round in theirs]
    return [each for each in found if not math.isnan(each)]  # what sent no text has no times


def _spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    if not values:
        return "–"
    shown = f"**{median(values):.2f}x**"
    return shown if len(values) == 1 else f"{shown} ({min(values):.2f} to {max(values):.2f})"


def _row(records: Records, context: Context, precision: str, server: str, cell: Cell | None) -> list[object] | None:
    rounds = [] if cell is None else records.of(precision, server, cell)
    if cell is None or not rounds:
        reason = records.failure(precision, server, cell)
        if reason is None or (cell is not None and reason == records.failure(precision, server, None)):
            return None
        return [precision, str(cell or "all"), server, f"– {_short(reason)}", *[""] * (len(HEAD) - 4)]

    def middle(field: str) -> float:
        return median([getattr(each, field) for each in rounds])

    speed = middle("tokens_per_s")
    # A step computes one token of each client and reads every weight once.
    share = "" if cell.is_long else f"{speed / cell.clients * context.step_bytes[precision] / context.gb_per_s / 1e9:.0%}"
    compared = ["", ""]
    if server != OURS:
        waiting = _ratios(records, precision, server, cell, "ttft_s")
        compared = [_spread(_ratios(records, precision, server, cell, "tokens_per_s")), f"{median(waiting):.2f}x" if waiting else "–"]
    memory = [f"{max(getattr(each, field) for each in rounds) / 1e6:,.0f}" for field in ("memory_bytes", "peak_bytes")]
    row = [precision, str(cell), server, speed, compared[0], middle("ttft_s") * 1e3, compared[1]]
    return [*row, middle("gap_s") * 1e3, middle("cpu_s") * 1e3, *memory, share]


def _short(reason: str, limit: int = 160) -> str:
    """What a reason begins with and its last line, without folders, as a cell of a table takes it."""
    first, *others = [line.strip() for line in reason.splitlines() if line.strip()]
    line = f"{first.partition(': ')[0]}: {others[-1]}" if others else first
    line = re.sub(r"(?<![\w.])/[^\s'\"]*/", "", line).replace("|", "/")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _order(records: Records) -> tuple[list[str], list[Cell], list[str]]:
    measured = [r for r in records.all if isinstance(r, Measured | Failed)]
    precisions = [each for each in PRECISIONS if any(r.precision == each for r in measured)]
    found = _unique(r.cell for r in measured if r.cell is not None)
    servers = [OURS, *(name for name in _unique(r.server for r in measured) if name != OURS)]
    return precisions, sorted(found, key=lambda cell: (cell.prompt_tokens, cell.clients)), servers


def full_table(records: Records, versions: str) -> str:
    """Every row, what failed and why, what the servers answered alike, and their commands."""
    context = next(r for r in records.all if isinstance(r, Context))
    precisions, found, servers = _order(records)
    rows = []
    for precision in precisions:
        # None: why a server has no figures at all is said once.
        for cell in (None, *found):
            rows += [row for server in servers if (row := _row(records, context, precision, server, cell)) is not None]
    rounds = max((r.round for r in records.all if isinstance(r, Measured)), default=0) + 1
    started = {(r.precision, r.server): r for r in records.all if isinstance(r, Started)}.values()
    peers = "".join(f", {name}" for name in _unique(f"{r.server} {r.version}" for r in started if r.version))
    where = f"{context.machine}; reading gives {context.gb_per_s:.1f} GB/s"
    lines = [
        f"{context.model}. {where}. {versions}{peers}. {rounds} round{'s' * (rounds > 1)}.",
        markdown_table(HEAD, rows),
    ]
    agreed = [f"{r.server} {r.precision} {r.same_tokens} of {r.of_tokens}" for r in started if r.server != OURS and r.of_tokens]
    if agreed:
        lines.append(f"Tokens of greedy answers that are ours, up to the first that differs: {'; '.join(agreed)}.")
    lines.append("\n".join(["Commands:", "", *(f"- {r.server} {r.precision}: `{r.command}`" for r in started)]))
    return "\n\n".join(lines)


def ratio_table(records: Records) -> str:
    """One row a peer and precision: our tokens per second over its, by workload; the last column is of times to the first token."""
    precisions, found, servers = _order(records)
    most = max((cell.clients for cell in found if not cell.is_long and cell.clients <= 16), default=None)
    rows: list[list[object]] = []
    for server in servers:
        for precision in precisions:
            speeds = [_ratios(records, precision, server, cell, "tokens_per_s") for cell in found]
            if server == OURS or not any(speeds):
                continue
            waiting = [
                r
                for cell in found
                if cell.clients == most and not cell.is_long
                for r in _ratios(records, precision, server, cell, "ttft_s")
            ]
            shown = [_bold_where_we_lose(median(each), 1 / median(each)) if each else "–" for each in speeds]
            rows.append([server, precision, *shown, _bold_where_we_lose(median(waiting), median(waiting)) if waiting else "–"])
    head = ["against", "precision", *map(str, found), f"TTFT p95, {most} clients"]
    model = next(r.model for r in records.all if isinstance(r, Context))
    said = f"{model}: our tokens per second over theirs, and our time to the first token over theirs; bold where we lose."
    return f"{said}\n\n{markdown_table(head, rows)}"


def _bold_where_we_lose(value: float, cost: float) -> str:
    return f"**{value:.2f}x**" if cost > 1 else f"{value:.2f}x"
