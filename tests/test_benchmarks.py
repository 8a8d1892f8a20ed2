"""What the benchmarks compute with: statistics, the load generator's protocol, workloads, tables, and the offline optimum."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from benchmarks.engine.model_swap import belady_loads, lru_loads
from benchmarks.support.http import Dechunker, EventSplitter
from benchmarks.support.measures import Percentiles, median, percentile, ratio
from benchmarks.support.tables import markdown_table, write_section
from benchmarks.support.workload import Workload


def test_percentiles_interpolate() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert Percentiles.of(list(range(101))) == Percentiles(50, 95, 99)
    assert median([1, math.nan, 3]) == 2
    assert math.isnan(percentile([], 0.5)) and math.isnan(ratio(1, 0))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_chunks_and_events_come_out_whole_however_they_arrive(size: int) -> None:
    payload = b'data: {"a": 1}\n\n: comment\n\ndata: [DONE]\n\n'
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (payload[:9], payload[9:])) + b"0\r\n\r\n"
    dechunker, splitter = Dechunker(), EventSplitter()
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    events = [event for piece in pieces for event in splitter.feed(dechunker.feed(piece))]
    assert events == [b'{"a": 1}', b"[DONE]"]
    assert dechunker.done


def test_a_workload_is_the_same_in_every_run_and_shares_its_prefix() -> None:
    workload = Workload(prompt_tokens=20, shared_prefix=12, seed=5)
    assert workload.body(3, "m") == Workload(prompt_tokens=20, shared_prefix=12, seed=5).body(3, "m")
    first, second = (workload.prompt(index).split() for index in (0, 1))
    assert first[:12] == second[:12] and first[12:] != second[12:]
    assert json.loads(workload.body(0, "m"))["stream_options"] == {"include_usage": True}


def test_tables_go_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n")
    write_section(page, "x", markdown_table(["a", "b"], [[1.234567, math.nan]]))
    assert page.read_text() == "before\n<!-- x:begin -->\n| a | b |\n| --- | --- |\n| 1.23 | – |\n<!-- x:end -->\nafter\n"
    with pytest.raises(ValueError, match="no section y"):
        write_section(page, "y", "")


def best_by_search(order: list[int], room: int) -> int:
    """The fewest loads of any choice of victims."""
    states = {frozenset[int](): 0}
    for model in order:
        following: dict[frozenset[int], int] = {}
        for resident, loads in states.items():
            options = [resident]
            if model not in resident:
                loads += 1
                options = [resident | {model}] if len(resident) < room else [(resident - {out}) | {model} for out in resident]
            for option in options:
                following[option] = min(loads, following.get(option, loads))
        states = following
    return min(states.values())


def test_the_offline_optimum_is_one() -> None:
    rng = random.Random(0)
    for room, _ in itertools.product((1, 2, 3), range(10)):
        order = [rng.randrange(5) for _ in range(14)]
        assert belady_loads(order, room) == best_by_search(order, room) <= lru_loads(order, room)
