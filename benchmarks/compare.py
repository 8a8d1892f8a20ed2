"""The gateway side by side with its peers on the same random-weight checkpoints; writes a table of ratios into docs/benchmarks.md.

    pip install -e '.[dev,bench]' --constraint constraints.txt
    python -m benchmarks.compare --llama-server /path/to/llama-server

Servers run one after the other, each for all workloads, and the whole sequence is repeated `--rounds` times, so that what
disturbs the machine meets all of them; the table shows medians over rounds and their ratios. All decode greedily, 64 tokens of
prompt and 64 of output, with as many threads as the process has cores. llama.cpp's server gets as many slots as there are clients.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks._checkpoints import CONTEXT_LENGTH, XS, M, make_checkpoint, make_gguf
from benchmarks._measures import median, ratio
from benchmarks._servers import PORT, ServerCommand, ServerError, running
from benchmarks._tables import machine, markdown_table, versions, write_section
from benchmarks._workload import Workload
from benchmarks.serving import Report, run

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
CLIENTS = (1, 16, 32)
REQUESTS = {1: 6, 16: 48, 32: 96}
SLOW_REQUESTS = {1: 3, 16: 16, 32: 32}
PREFIX = Workload(clients=1, requests=12, prompt_tokens=544, output_tokens=4, shared_prefix=0, ignore_eos=True, warmup=1)


@dataclass(frozen=True)
class Contender:
    """A server of the comparison. slow: gets fewer requests, because it would take minutes for the usual ones."""

    command: ServerCommand
    precision: str
    slow: bool = False
    endpoint: str = "completions"


def contenders(checkpoint: Path, work: Path, llama_server: Path | None) -> list[Contender]:
    """Every server, ours first."""
    found = [Contender(_ours(checkpoint, work, precision), precision) for precision in ("f32", "f16", "8bit")]
    if llama_server is not None:
        for precision, kind in (("f32", "f32"), ("f16", "f16"), ("8bit", "q8_0")):
            found.append(Contender(_llama(checkpoint, llama_server, kind), precision))
    for name, flags in (("transformers serve", ()), ("transformers serve, continuous batching", ("--continuous-batching",))):
        found.append(Contender(_transformers(name, checkpoint, flags), "f32", slow=True, endpoint="chat"))
    return found


def _ours(checkpoint: Path, work: Path, precision: str) -> ServerCommand:
    entry = {"model_name": str(checkpoint), "device": "cpu", "preload": True}
    entry |= {"f32": {"dtype": "fp32"}, "f16": {"dtype": "fp16"}, "8bit": {"quantization": "8bit"}}[precision]
    models = work / f"{checkpoint.name}-{precision}.yaml"
    models.write_text(json.dumps({"models": {"m": entry}}))
    command = (sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(models), "--port", PORT)
    return ServerCommand(f"mm_gateway {precision}", command, "m")


def _llama(checkpoint: Path, binary: Path, kind: str) -> ServerCommand:
    slots = max(CLIENTS)
    threads = str(len(os.sched_getaffinity(0)))
    command = (str(binary), "-m", str(make_gguf(checkpoint, kind)), "--port", PORT, "--host", "127.0.0.1", "-np", str(slots))
    command += ("-c", str(slots * 256), "-t", threads, "-tb", threads, "--no-webui", "--cache-ram", "0")
    return ServerCommand(f"llama-server {kind}", command, "m")


def _transformers(name: str, checkpoint: Path, flags: tuple[str, ...]) -> ServerCommand:
    binary = str(Path(sys.executable).with_name("transformers"))
    command = (binary, "serve", str(checkpoint), "--device", "cpu", "--port", PORT, *flags)
    return ServerCommand(name, command, str(checkpoint))


def measure(contender: Contender, clients: tuple[int, ...], scale: float, seed: int) -> dict[int, Report]:
    """All workloads of one server, started afresh. An empty result where it does not run here."""
    requests = SLOW_REQUESTS if contender.slow else REQUESTS
    reports: dict[int, Report] = {}
    try:
        with running(contender.command) as server:
            for count in clients:
                workload = Workload(
                    clients=count,
                    requests=max(count, round(requests[count] * scale)),
                    endpoint="chat" if contender.endpoint == "chat" else "completions",
                    seed=seed,
                    warmup=min(count, 4),
                )
                reports[count] = uvloop.run(run(workload, server.base_url, server.model))
                _say(f"{contender.command.name}, {count} clients: {reports[count].tokens_per_s:.1f} tok/s", reports[count])
    except ServerError as error:
        _say(f"left out: {error}")
    return reports


def throughput_section(results: dict[str, list[dict[int, Report]]], servers: list[Contender], clients: tuple[int, ...]) -> str:
    """One row a server and number of clients: tok/s, latencies, and how we do against it at the same precision."""

    def values(name: str, count: int, pick: Callable[[Report], float]) -> float:
        return median([pick(reports[count]) for reports in results.get(name, []) if count in reports])

    rows = []
    for server in servers:
        ours = f"mm_gateway {server.precision}"
        for count in clients:
            name = server.command.name
            speed = values(name, count, lambda report: report.tokens_per_s)
            first = values(name, count, lambda report: report.ttft.p95)
            gap = values(name, count, lambda report: report.inter_token.p50)
            speedup = ratio(values(ours, count, lambda report: report.tokens_per_s), speed)
            waiting = ratio(values(ours, count, lambda report: report.ttft.p95), first)
            row = [name, count, speed, first * 1e3, gap * 1e3]
            rows.append([*row, *(("", "") if name == ours else (f"{speedup:.2f}x", f"{waiting:.2f}x"))])
    head = ["server", "clients", "output tok/s", "TTFT p95, ms", "inter-token p50, ms", "our tok/s against it", "our TTFT p95 against it"]
    commands = "\n".join(f"- {server.command.name}: `{server.command.shown()}`" for server in servers)
    return f"{_context()}\n\n{markdown_table(head, rows)}\n\nCommands:\n\n{commands}"


def measure_prefix(checkpoint: Path, work: Path) -> str:
    """Time to first token of 544-token prompts, 512 of them shared with an earlier one or not."""
    with running(_ours(checkpoint, work, "f32")) as server:
        cold = uvloop.run(run(dataclasses.replace(PREFIX, seed=101), server.base_url, server.model))
        warm = uvloop.run(run(dataclasses.replace(PREFIX, seed=102, shared_prefix=512), server.base_url, server.model))
    head = ["prompts of 544 tokens", "TTFT p50, ms", "TTFT p95, ms"]
    rows = [
        ["nothing in common", cold.ttft.p50 * 1e3, cold.ttft.p95 * 1e3],
        ["512 tokens in common", warm.ttft.p50 * 1e3, warm.ttft.p95 * 1e3],
    ]
    return f"{_context()}\n\n{markdown_table(head, rows)}\n\nWarm against cold: {ratio(warm.ttft.p50, cold.ttft.p50):.2f}x"


def measure_gateway_tax(work: Path, rounds: int) -> str:
    """Tokens per second of XS at 32 clients: over HTTP, and from the engine in a process that only reads its events."""
    checkpoint = make_checkpoint(XS, work)
    workload = Workload(clients=32, requests=256, ignore_eos=True, warmup=32)
    served, alone = [], []
    for index in range(rounds):
        with running(_ours(checkpoint, work, "f32")) as server:
            served.append(uvloop.run(run(dataclasses.replace(workload, seed=index), server.base_url, server.model)).tokens_per_s)
        alone.append(_engine_alone(checkpoint, dataclasses.replace(workload, seed=index)))
        _say(f"XS: gateway {served[-1]:.0f}, engine alone {alone[-1]:.0f} tok/s")
    rows = [["gateway and engine, clients on the same cores", median(served)], ["engine alone", median(alone)]]
    table = markdown_table(["XS, 32 clients, 64 + 64 tokens", "output tok/s"], rows)
    return f"{_context()}\n\n{table}\n\nWith the gateway against without: {ratio(median(served), median(alone)):.2f}x"


def _engine_alone(checkpoint: Path, workload: Workload) -> float:
    import subprocess

    command = [sys.executable, "-m", "benchmarks.engine_alone", str(checkpoint), json.dumps(dataclasses.asdict(workload))]
    return float(subprocess.run(command, cwd=PAGE.parent.parent, capture_output=True, text=True, check=True).stdout)


def _context() -> str:
    return f"{machine()}. {versions('mm-gateway', 'torch', 'transformers', 'uvicorn', 'litestar')}."


def _say(text: str, report: Report | None = None) -> None:
    errors = f"  {report.errors}" if report is not None and report.errors else ""
    print(text + errors, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's server binary")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where checkpoints are made and kept")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=("serving", "prefix", "tax"), default=("serving", "prefix", "tax"))
    parser.add_argument("--servers", nargs="*", help="only servers whose name contains one of these; ours always runs")
    parser.add_argument("--clients", type=int, nargs="*", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of requests")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint(M, args.work.resolve())
    sections: dict[str, str] = {}
    if "serving" in args.only:
        servers = contenders(checkpoint, args.work.resolve(), args.llama_server)
        if args.servers is not None:
            servers = [s for s in servers if any(part in s.command.name for part in (*args.servers, "mm_gateway"))]
        clients = tuple(args.clients)
        results: dict[str, list[dict[int, Report]]] = {server.command.name: [] for server in servers}
        for index in range(args.rounds):
            for server in servers:
                results[server.command.name].append(measure(server, clients, args.scale, seed=index))
        sections["serving"] = throughput_section(results, servers, clients)
    if "prefix" in args.only:
        sections["prefix"] = measure_prefix(checkpoint, args.work.resolve())
    if "tax" in args.only:
        sections["tax"] = measure_gateway_tax(args.work.resolve(), args.rounds)
    for name, text in sections.items():
        if args.dry:
            print(text, end="\n\n")
        else:
            write_section(PAGE, name, text)
    assert PREFIX.prompt_tokens + PREFIX.output_tokens <= CONTEXT_LENGTH
    return 0


if __name__ == "__main__":
    sys.exit(main())
