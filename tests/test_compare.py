"""The comparison with other servers: what is asked, what is written down, servers that take turns, tables."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.compare.cells import Cell, cells
from benchmarks.compare.records import Context, Failed, Measured, Records, Started
from benchmarks.compare.side_by_side import CellError, SideBySide, same_tokens
from benchmarks.compare.tables import full_table, ratio_table
from benchmarks.peers.server import Server
from benchmarks.peers.table import read_peers
from benchmarks.support.servers import PORT, ServerCommand, ServerError

SHORT, LONG = Cell(16, 64, 64), Cell(1, 2048, 1)


def measured(server: str, cell: Cell, round_index: int, speed: float, ttft_s: float = 1.0) -> Measured:
    return Measured("f16", server, cell, round_index, speed, ttft_s, 0.01, 0.02, 1e9, 2e9)


def test_long_prompts_are_asked_by_their_own_numbers_of_clients_for_one_token() -> None:
    assert cells([1, 16], [64, 2048], [1], 64) == [Cell(1, 64, 64), SHORT, LONG]


def test_no_two_cells_or_rounds_have_a_prompt_in_common() -> None:
    workloads = [cell.workload(index, 1.0) for cell in cells([1, 4, 16, 32], [64, 2048], [1, 4], 64) for index in range(3)]
    beginnings = [" ".join(each.prompt(index).split()[:16]) for each in workloads for index in range(each.requests)]
    assert len(set(beginnings)) == len(beginnings)


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    records = Records(file, resume=False)
    for record in (Context("m", "here", 20.0, {"f16": 1e8}), measured("a", SHORT, 0, 5.0), Failed("f16", "b", SHORT, "too slow")):
        records.add(record)
    file.write_bytes(file.read_bytes() + b'{"type":"Meas')
    again = Records(file, resume=True)
    assert again.all == records.all
    again.add(measured("a", SHORT, 1, 6.0))
    assert [each.tokens_per_s for each in Records(file, resume=True).of("f16", "a", SHORT)] == [5.0, 6.0]
    assert again.has("f16", "a", SHORT, 1) and not again.has("f16", "a", LONG, 0)
    assert again.failure("f16", "b", SHORT) == "too slow" and again.failure("f16", "b", LONG) is None
    again.add(Started("f16", "b", "", "serve", 1, 1))
    assert again.failure("f16", "b", SHORT) is None


@pytest.mark.parametrize("field", ["gap_s", "ttft_s"])  # of an answer of one token, or without text
def test_a_cell_without_some_time_is_read_again(tmp_path: Path, field: str) -> None:
    without = msgspec.structs.replace(measured("a", LONG, 0, 900.0), **{field: math.nan})
    Records(tmp_path / "results.jsonl", resume=False).add(without)
    assert math.isnan(getattr(Records(tmp_path / "results.jsonl", resume=True).of("f16", "a", LONG)[0], field))


def test_tables_give_ratios_of_rounds_and_say_why_figures_are_missing(tmp_path: Path) -> None:
    records = Records(tmp_path / "results.jsonl", resume=False)
    records.add(Context("Model", "a machine", 20.0, {"f16": 2.5e8}))
    records.add(Started("f16", "mm_gateway", "", "serve", 8, 8))
    records.add(Started("f16", "other", "1.2", "other serve", 7, 8))
    for index, (ours, theirs) in enumerate([(320, 160), (300, 100), (310, 310)]):
        records.add(measured("mm_gateway", SHORT, index, ours, 0.5))
        records.add(measured("other", SHORT, index, theirs, 0.25))
    records.add(measured("mm_gateway", LONG, 0, 900))
    records.add(Failed("f16", "other", LONG, "HTTP 400: no | room"))
    log = "Traceback\nOSError: /c/d/lib.so is missing\n"
    records.add(Failed("f16", "third", None, f"third f16 ended with status 1: /a/b/third serve\n{log}"))
    table = full_table(records, "Python 3")
    assert "| f16 | 16 clients, 64 + 64 | other | 160 | **2.00x** (1.00 to 3.00) | 250 | 2.00x | 10 | 20 | 1,000 | 2,000 | 12% |" in table
    assert "| f16 | prompt of 2,048 | other | – HTTP 400: no / room |" in table
    assert table.count("third f16 ended with status 1: OSError: lib.so is missing") == 1
    assert "other f16 7 of 8" in table and "other 1.2" in table
    assert "| other | f16 | 2.00x | – | **2.00x** |" in ratio_table(records)


def test_agreement_ends_where_texts_first_differ() -> None:
    assert same_tokens(str.split, ["a b c d", "x"], ["a b z d", ""]) == (2, 5)


def test_peers_are_named_and_placed(tmp_path: Path) -> None:
    assert read_peers(f"llama-server={tmp_path},transformers") == {"llama-server": tmp_path, "transformers": None}
    with pytest.raises(ValueError, match="nobody is no peer"):
        read_peers("nobody=x")


def test_servers_take_turns(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("models: {m: {model_name: mock, backend: mock}}")
    command = (sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(models), "--port", PORT)
    server = Server("mock", ServerCommand("mock", command, "m"), ready_s=1)
    cell = Cell(2, 8, 4)
    with SideBySide() as side_by_side:
        first = side_by_side.start(server, [cell])
        with side_by_side.awake(first):
            result = first.measure("f32", cell, 0, 1.0, 30)
            assert first.texts() == first.texts()
        assert result.tokens_per_s > 0 and result.peak_bytes >= result.memory_bytes > 1e7
        # Asleep it answers nothing, and it can be ended.
        began_s = time.monotonic()
        with pytest.raises(CellError, match="not done after 1 s"):
            first.measure("f32", cell, 1, 1.0, 1.0)
        assert time.monotonic() - began_s < 20
        broken = dataclasses.replace(server, command=ServerCommand("broken", (str(tmp_path / "nothing"),), "m"))
        with pytest.raises(ServerError, match="broken cannot be run"):
            side_by_side.start(broken, [cell])
    assert not psutil.pid_exists(first.running.pid)
