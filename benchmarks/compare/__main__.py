"""The gateway side by side with its peers on the same weights; writes tables into docs/benchmarks.md and docs/performance.md.

    python -m benchmarks.compare --model smollm2 --peers llama-server=/path/to/llama-server,vllm=VENV,openvino=VENV,transformers=VENV

The memory is measured first. Then all servers of one precision are started, warmed up, and asked in turn, cell by cell, round by round,
so that what disturbs the machine meets all of them; who is not asked is stopped (SIGSTOP). All decode greedily, guess nothing, and
get the same prompts, which no server has seen before. What is measured is written down at once: `--resume` goes on after an
interruption, `--table` makes the tables of what there is. How each peer is installed: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.compare.cells import Cell, cells, guessed_s
from benchmarks.compare.records import Context, Failed, Measured, Record, Records, Started
from benchmarks.compare.side_by_side import CellError, Contender, SideBySide, same_tokens
from benchmarks.compare.tables import full_table, ratio_table
from benchmarks.peers import gateway
from benchmarks.peers.models import MODELS, Model, open_model
from benchmarks.peers.server import PRECISIONS, Demand, NotServed, Server
from benchmarks.peers.table import PEERS, read_peers
from benchmarks.support.servers import ServerError
from benchmarks.support.tables import DOCS, machine, versions, write_section
from mm_gateway.runtime.model_speed import memory_gb_per_s


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        kernels: ours, of one instruction set; empty: the best. deadline_s: on the monotonic clock, after which no cell is begun.
    """

    model: Model
    kernels: str
    peers: dict[str, Path | None]
    precisions: Sequence[str]
    cells: list[Cell]
    rounds: int
    scale: float
    timeout_s: float
    deadline_s: float

    def servers(self, precision: str) -> list[Server | Failed]:
        """Ours first; a peer that cannot hold the model so is the reason why."""
        clients = max(cell.clients for cell in self.cells)
        tokens = max(cell.prompt_tokens + cell.output_tokens for cell in self.cells)
        at_once = max(cell.clients * (cell.prompt_tokens + cell.output_tokens) for cell in self.cells)
        demand = Demand(clients, tokens, at_once)
        found: list[Server | Failed] = [gateway.server(self.model, precision, self.kernels)]
        for name, where in self.peers.items():
            try:
                found += PEERS[name].servers(self.model, precision, where, demand)
            except NotServed as reason:
                found.append(Failed(precision, PEERS[name].title, None, str(reason)))
        return found

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline_s


def compare(plan: Plan, records: Records) -> None:
    """Measure what the records do not have yet."""
    for precision in plan.precisions:
        with SideBySide() as side_by_side:
            contenders: list[Contender] = []
            ours: list[str] = []
            servers = plan.servers(precision)
            if not any(isinstance(server, Server) and _has_work(plan, records, precision, server) for server in servers):
                continue
            for server in servers:
                if isinstance(server, Failed):
                    _note(records, server)
                elif not plan.is_late() and (server.name == gateway.NAME or _has_work(plan, records, precision, server)):
                    contenders += _started(plan, records, precision, server, side_by_side, ours)
            for round_index in range(plan.rounds):
                for cell in plan.cells:
                    for contender in contenders:
                        if plan.is_late():
                            return
                        name = contender.server.name
                        if not records.has(precision, name, cell, round_index) and records.failure(precision, name, cell) is None:
                            _note(records, _measured(plan, precision, cell, round_index, side_by_side, contender))


def _has_work(plan: Plan, records: Records, precision: str, server: Server) -> bool:
    return not all(records.has(precision, server.name, cell, index) for cell in plan.cells for index in range(plan.rounds))


def _started(plan: Plan, records: Records, precision: str, server: Server, side_by_side: SideBySide, ours: list[str]) -> list[Contender]:
    """The server, asleep, once what it says was compared with `ours`, which the gateway's own texts become; nothing where it failed."""
    try:
        contender = side_by_side.start(server, plan.cells)
        with side_by_side.awake(contender):
            texts = contender.texts()
    except (ServerError, CellError) as error:
        _note(records, Failed(precision, server.name, None, str(error)))
        return []
    if server.name == gateway.NAME:
        ours.extend(texts)
    tokenizer = Tokenizer.from_file(str(plan.model.folder / "tokenizer.json"))
    same = same_tokens(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, ours, texts) if ours else (0, 0)
    _note(records, Started(precision, server.name, server.version, server.command.shown(), *same))
    return [contender]


def _measured(plan: Plan, precision: str, cell: Cell, round_index: int, side_by_side: SideBySide, contender: Contender) -> Record:
    try:
        with side_by_side.awake(contender):
            return contender.measure(precision, cell, round_index, plan.scale, plan.timeout_s)
    except (CellError, ServerError) as error:
        return Failed(precision, contender.server.name, cell, str(error))


def _note(records: Records, record: Record) -> None:
    records.add(record)
    if isinstance(record, Measured):
        shown = f"{record.server} {record.precision}, {record.cell}, round {record.round}: {record.tokens_per_s:.1f} tok/s"
    elif isinstance(record, Started):
        shown = f"{record.server} {record.precision}: {record.same_tokens} of {record.of_tokens} tokens are ours"
    else:
        shown = str(record)
    print(shown, file=sys.stderr, flush=True)


def estimate_minutes(plan: Plan) -> float:
    """About how long it takes on two quiet cores, starts included."""
    seconds = 0.0
    for precision in plan.precisions:
        for server in plan.servers(precision):
            if isinstance(server, Server):
                each = [guessed_s(cell, precision, plan.scale, one_at_a_time=server.one_at_a_time) for cell in plan.cells]
                seconds += server.ready_s + 5 + plan.rounds * sum(each)
    return seconds / 60


def write_tables(name: str, records: Records, *, dry: bool) -> None:
    """name: of the sections of both pages."""
    full = full_table(records, versions("mm-gateway", "torch", "transformers"))
    ratios = ratio_table(records)
    if dry:
        print(full, ratios, sep="\n\n")
        return
    write_section(DOCS / "benchmarks.md", f"compare {name}", full)
    write_section(DOCS / "performance.md", f"ratios {name}", ratios)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--peers", type=read_peers, default={}, help=f"of {', '.join(PEERS)}, each with =PATH to its binary or environment")
    parser.add_argument(
        "--precisions", type=lambda text: text.split(","), default=["f32", "f16", "8bit", "4bit"], help=", ".join(PRECISIONS)
    )
    parser.add_argument(
        "--kernels", default="", help="ours, of one instruction set (avx2), beside peers that were built for it; has tables of its own"
    )
    parser.add_argument("--label", default="", help="of results and tables of their own, such as those of another processor")
    parser.add_argument("--clients", type=_numbers, default=[1, 4, 16, 32], help="of prompts below 512 tokens")
    parser.add_argument("--prompts", type=_numbers, default=[64, 2048], help="tokens; from 512 on they are read for one token")
    parser.add_argument("--long-clients", type=_numbers, default=[1], help="of prompts from 512 tokens on")
    parser.add_argument("--output", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual requests: 4 of one client, 2 of each of many")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="of one cell")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no cell is begun after so many")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where models and results are kept")
    parser.add_argument("--prepare", action="store_true", help="make the models' files and end")
    parser.add_argument("--resume", action="store_true", help="keep the results that are there, and measure what is missing")
    parser.add_argument("--table", action="store_true", help="make the tables of the results that are there, and end")
    parser.add_argument("--dry", action="store_true", help="print the tables instead of writing them into docs/")
    args = parser.parse_args()
    # Ended by a signal, it takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if unknown := set(args.precisions).difference(PRECISIONS):
        parser.error(f"no such precision: {', '.join(sorted(unknown))}")
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model = open_model(args.model, work)
    name = " ".join(filter(None, (model.name, args.kernels, args.label)))
    results = work / f"compare-{name.replace(' ', '-')}.jsonl"
    if args.table:
        write_tables(name, Records(results, resume=True), dry=args.dry)
        return 0
    asked = cells(args.clients, args.prompts, args.long_clients, args.output)
    deadline_s = time.monotonic() + args.minutes * 60
    plan = Plan(model, args.kernels, args.peers, args.precisions, asked, args.rounds, args.scale, args.timeout_s, deadline_s)
    print(f"about {estimate_minutes(plan):.0f} minutes on two quiet cores; results: {results}", file=sys.stderr, flush=True)
    if args.prepare:
        return 0
    records = Records(results, resume=args.resume)
    if not any(isinstance(record, Context) for record in records.all):
        step_bytes = {precision: model.step_bytes(precision) for precision in PRECISIONS}
        title = f"{model.title}, our {args.kernels} kernels" if args.kernels else model.title
        _note(records, Context(title, machine(), memory_gb_per_s(), step_bytes))
    compare(plan, records)
    write_tables(name, records, dry=args.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
