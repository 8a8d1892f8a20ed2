"""What a comparison measured, one JSON object a line, so that a run that was cut short goes on where it was. Knows no server."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from benchmarks.compare.cells import Cell


class Context(msgspec.Struct, tag=True, frozen=True):
    """What the figures hold for.

    Attributes:
        gb_per_s: what reading the memory gave before anything else ran. step_bytes: what a step reads of the weights, by precision.
    """

    model: str
    machine: str
    gb_per_s: float
    step_bytes: dict[str, float]


class Started(msgspec.Struct, tag=True, frozen=True):
    """A server that ran.

    Attributes:
        version: of its program. command: without folders.
        same_tokens: of the of_tokens that the gateway decodes at this precision after fixed prompts, those that it decodes too.
    """

    precision: str
    server: str
    version: str
    command: str
    same_tokens: int
    of_tokens: int


class Measured(msgspec.Struct, tag=True, frozen=True):
    """One cell of one round.

    Attributes:
        tokens_per_s: of output, or of prompts that are read for one token. ttft_s: time to the first token, p95.
        gap_s: between tokens, p50. cpu_s: of the server, by such a token.
        memory_bytes: of its processes after the cell (RSS). peak_bytes: their most until then.
    """

    precision: str
    server: str
    cell: Cell
    round: int
    tokens_per_s: float
    ttft_s: float
    gap_s: float
    cpu_s: float
    memory_bytes: float
    peak_bytes: float


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A server that did not start (cell: None) or did not answer a cell."""

    precision: str
    server: str
    cell: Cell | None
    reason: str


Record = Context | Started | Measured | Failed


class Records:
    """The lines of one file.

    Attributes:
        all: in the order in which they were written.
    """

    def __init__(self, file: Path, *, resume: bool) -> None:
        self._file = file
        self.all: list[Record] = []
        if resume and file.exists():
            # A run that was ended in the middle of a line left half of it.
            whole = file.read_bytes().rpartition(b"\n")[0]
            self.all = [_read(line) for line in whole.splitlines()]
            file.write_bytes(whole + b"\n" * bool(whole))
        else:
            file.write_bytes(b"")

    def add(self, record: Record) -> None:
        self.all.append(record)
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def of(self, precision: str, server: str, cell: Cell) -> list[Measured]:
        """Its rounds, in order; the newest where one was measured twice."""
        found = {r.round: r for r in self.all if isinstance(r, Measured) and (r.precision, r.server, r.cell) == (precision, server, cell)}
        return [found[index] for index in sorted(found)]

    def has(self, precision: str, server: str, cell: Cell, round_index: int) -> bool:
        return any(record.round == round_index for record in self.of(precision, server, cell))

    def failure(self, precision: str, server: str, cell: Cell | None) -> str | None:
        """Why a cell has no more figures than it has; nothing once it was tried again and worked. cell None: why no cell has any."""
        found = None
        for record in self.all:
            if isinstance(record, Context) or (record.precision, record.server) != (precision, server):
                continue
            if isinstance(record, Failed):
                found = record.reason if record.cell in (None, cell) else found
            elif isinstance(record, Started) or record.cell == cell:
                found = None
        return found


def _read(line: bytes) -> Record:
    fields = msgspec.json.decode(line)
    if fields["type"] == Measured.__name__:  # JSON has no word for what is no number: an answer of one token, or without text, has no times
        fields |= {name: math.nan for name, value in fields.items() if value is None}
    return msgspec.convert(fields, Record)  # type: ignore[arg-type]
