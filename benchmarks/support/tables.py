"""Writes measured tables into a Markdown page between markers, with the machine and versions they hold for; knows no benchmark."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The project's folder."""
DOCS = ROOT / "docs"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as a Markdown table; floats to three significant digits, NaN as a dash."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def write_section(page: Path, name: str, text: str, *, dry: bool = False) -> None:
    """Put `text` between `<!-- name:begin -->` and `<!-- name:end -->`; the rest of the page stays.

    Args:
        dry: print it, and leave the page as it is.

    Raises:
        ValueError: the page has no such markers.
    """
    if dry:
        print(text)
        return
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = page.read_text(encoding="utf-8")
    head, found_begin, rest = content.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page.name} has no section {name}: it needs the lines {begin} and {end}")
    page.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}", encoding="utf-8")


def machine() -> str:
    """CPU model, cores that this process may use, vector extensions, memory."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        entries = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in entries.items()}
        model = fields.get("model name", model)
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
        flags = ", ".join(flag for flag in wanted if flag in fields.get("flags", "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores ({flags or 'no vector extensions known'}), {memory_gib:.0f} GiB"


def versions(*packages: str) -> str:
    """Python's version and those of the packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
