"""What a shared prefix saves, and what the gateway costs beside its engine; writes two sections of docs/benchmarks.md.

    python -m benchmarks.gateway.share

The prefix is of model M: time to the first token of prompts that share most of their tokens with an earlier one, or none. The gateway's
cost is of XS, where it shows most: over HTTP, and from the engine in a process that only reads its events.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import uvloop

from benchmarks.peers.gateway import command
from benchmarks.serving import run
from benchmarks.support.checkpoints import XS, M, make_checkpoint
from benchmarks.support.measures import median, ratio
from benchmarks.support.servers import running
from benchmarks.support.tables import DOCS, ROOT, machine, markdown_table, versions, write_section
from benchmarks.support.workload import Workload

PREFIX = Workload(clients=1, requests=12, prompt_tokens=544, output_tokens=4, shared_prefix=0, ignore_eos=True, warmup=1)


def measure_prefix(work: Path) -> str:
    """Time to first token of 544-token prompts, 512 of them shared with an earlier one or not."""
    with running(command(make_checkpoint(M, work), "f32", guesses=True)) as server:
        cold = uvloop.run(run(dataclasses.replace(PREFIX, seed=101), server.base_url, server.model))
        warm = uvloop.run(run(dataclasses.replace(PREFIX, seed=102, shared_prefix=512), server.base_url, server.model))
    head = ["prompts of 544 tokens", "TTFT p50, ms", "TTFT p95, ms"]
    rows = [
        ["nothing in common", cold.ttft.p50 * 1e3, cold.ttft.p95 * 1e3],
        ["512 tokens in common", warm.ttft.p50 * 1e3, warm.ttft.p95 * 1e3],
    ]
    return f"{_context()}\n\n{markdown_table(head, rows)}\n\nWarm against cold: {ratio(warm.ttft.p50, cold.ttft.p50):.2f}x"


def measure_gateway_tax(work: Path, rounds: int) -> str:
    """Tokens per second of XS at 32 clients, with the gateway and without."""
    checkpoint = make_checkpoint(XS, work)
    workload = Workload(clients=32, requests=256, ignore_eos=True, warmup=32)
    served, alone = [], []
    for index in range(rounds):
        with running(command(checkpoint, "f32", guesses=True)) as server:
            served.append(uvloop.run(run(dataclasses.replace(workload, seed=index), server.base_url, server.model)).tokens_per_s)
        alone.append(_engine_alone(checkpoint, dataclasses.replace(workload, seed=index)))
        print(f"XS: gateway {served[-1]:.0f}, engine alone {alone[-1]:.0f} tok/s", file=sys.stderr, flush=True)
    rows = [["gateway and engine, clients on the same cores", median(served)], ["engine alone", median(alone)]]
    table = markdown_table(["XS, 32 clients, 64 + 64 tokens", "output tok/s"], rows)
    return f"{_context()}\n\n{table}\n\nWith the gateway against without: {ratio(median(served), median(alone)):.2f}x"


def _engine_alone(checkpoint: Path, workload: Workload) -> float:
    words = [sys.executable, "-m", "benchmarks.gateway.engine_alone", str(checkpoint), json.dumps(dataclasses.asdict(workload))]
    return float(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def _context() -> str:
    return f"{machine()}. {versions('mm-gateway', 'torch', 'transformers', 'uvicorn', 'litestar')}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where checkpoints are made and kept")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=("prefix", "tax"), default=("prefix", "tax"))
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sections = {}
    if "prefix" in args.only:
        sections["prefix"] = measure_prefix(work)
    if "tax" in args.only:
        sections["tax"] = measure_gateway_tax(work, args.rounds)
    for name, text in sections.items():
        if args.dry:
            print(text, end="\n\n")
        else:
            write_section(DOCS / "benchmarks.md", name, text)


if __name__ == "__main__":
    main()
