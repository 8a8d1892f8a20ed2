"""A real model on a CPU against llama.cpp's server, in every precision; writes a section of docs/benchmarks.md.

    make .compat/llama-cpp/.installed; python -m benchmarks.real_model_speed --llama-server /path/to/llama-server

The model is SmolLM2-135M-Instruct as real_model_accuracy.py has it: the gateway reads safetensors, llama.cpp files of its own quantizers.
Both servers of a precision run one after the other in each round, and ratios are of one round. The memory is measured first: one
sequence's step reads every weight once, so that is the limit of one client. Guessing (`engine.prompt_lookup`) is off: llama-server
guesses nothing by default, and random words greedily continued repeat themselves more than people's texts do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from benchmarks._measures import median, ratio
from benchmarks._servers import PORT, RunningServer, ServerCommand, running
from benchmarks._tables import machine, markdown_table, versions, write_section
from benchmarks._workload import Workload
from benchmarks.real_model_accuracy import LLAMA_CPP, make_file, make_model
from benchmarks.serving import run
from mm_gateway.runtime.model_speed import memory_gb_per_s

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
LAYERS = 30
FILES = {"f32": "F32", "f16": "F16", "8bit": "Q8_0", "4bit": "Q4_0"}
"""Our precisions, and llama.cpp's for the same number of bits."""
REQUESTS = {1: 6, 4: 12, 16: 32, 32: 64}
SLOT_TOKENS = 2304
LONG_PROMPT = 2048


@dataclass(frozen=True)
class Measured:
    """tokens_per_s: of output, or of a prompt that is read for one token. ttft_s: p95. cpu_s: of the server, by such a token.
    peak_bytes: of the server until then."""

    tokens_per_s: float
    ttft_s: float
    cpu_s: float
    peak_bytes: float


def commands(work: Path, precision: str, llama_server: Path) -> tuple[ServerCommand, ServerCommand]:
    """Ours and llama.cpp's."""
    folder, threads = make_model(work), str(len(os.sched_getaffinity(0)))
    held = {"f32": {"dtype": "fp32"}, "f16": {"dtype": "fp16"}}.get(precision) or {"quantization": precision}
    models, config = work / f"smollm2-{precision}.yaml", work / "gateway.yaml"
    models.write_text(json.dumps({"models": {"m": {"model_name": str(folder), "device": "cpu", "preload": True} | held}}))
    config.write_text(json.dumps({"engine": {"prompt_lookup": False}}))
    ours = (sys.executable, "-m", "mm_gateway.main", "serve", "--config", str(config), "--models", str(models), "--port", PORT)
    kind = FILES[precision]
    file = folder / "F32.gguf" if kind == "F32" else make_file(folder, kind, LAYERS, LLAMA_CPP)
    theirs = (str(llama_server), "-m", str(file), "--port", PORT, "--host", "127.0.0.1", "-np", "32", "-c", str(32 * SLOT_TOKENS))
    theirs += ("-t", threads, "-tb", threads, "--no-webui", "--cache-ram", "0")
    return ServerCommand(f"mm_gateway {precision}", ours, "m"), ServerCommand(f"llama-server {kind}", theirs, "m")


def measure(command: ServerCommand, workloads: list[Workload]) -> list[Measured]:
    """Of each workload, by a server that was started afresh."""
    with running(command) as server:
        uvloop.run(run(Workload(clients=1, requests=1, warmup=1, ignore_eos=True), server.base_url, server.model))
        return [_measure(server, workload) for workload in workloads]


def _measure(server: RunningServer, workload: Workload) -> Measured:
    before_s = _cpu_s(server)
    report = uvloop.run(run(workload, server.base_url, server.model))
    if report.errors:
        raise RuntimeError(f"{workload}: {report.errors}")
    peak = sum(process.memory_full_info().rss for process in _processes(server))
    tokens = report.output_tokens if workload.output_tokens > 1 else report.prompt_tokens
    print(
        f"{workload.clients} clients, {workload.prompt_tokens} tokens: {tokens / report.duration_s:.1f} tok/s", file=sys.stderr, flush=True
    )
    return Measured(tokens / report.duration_s, report.ttft.p95, (_cpu_s(server) - before_s) / tokens, float(peak))


def _processes(server: RunningServer) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(server: RunningServer) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes(server))


def section(results: dict[tuple[str, str], list[tuple[Measured, Measured]]], gb_per_s: float, weights: dict[str, float]) -> str:
    """results: by precision and workload, a pair a round."""
    rows: list[list[object]] = []
    for (precision, workload), pairs in results.items():
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        ratios = [ratio(mine.tokens_per_s, other.tokens_per_s) for mine, other in pairs]
        speed = median([each.tokens_per_s for each in ours])
        limit = f"{speed * weights[precision] / gb_per_s / 1e9:.0%}" if workload.startswith("1 client,") else ""
        rows.append(
            [
                precision,
                workload,
                speed,
                median([each.tokens_per_s for each in theirs]),
                f"**{median(ratios):.2f}x** ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{median([ratio(mine.ttft_s, other.ttft_s) for mine, other in pairs]):.2f}x",
                f"{median([each.cpu_s for each in ours]) * 1e3:.1f} / {median([each.cpu_s for each in theirs]) * 1e3:.1f}",
                f"{max(each.peak_bytes for each in ours) / 1e6:.0f} / {max(each.peak_bytes for each in theirs) / 1e6:.0f}",
                limit,
            ]
        )
    head = [
        "precision",
        "workload",
        "ours, tok/s",
        "llama-server",
        "ratio",
        "TTFT p95",
        "CPU ms a token",
        "memory, MB",
        "of the memory's limit",
    ]
    context = f"{machine()}; reading gives {gb_per_s:.1f} GB/s. {versions('mm-gateway', 'torch', 'transformers')}."
    return f"{context}\n\n{markdown_table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=Path, required=True, help="llama.cpp's server binary")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where checkpoints are made and kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="*", choices=FILES, default=list(FILES))
    parser.add_argument("--clients", type=int, nargs="*", choices=REQUESTS, default=list(REQUESTS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of requests")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    gb_per_s = memory_gb_per_s()
    weights = {
        "f32": 134.5e6 * 4,
        "f16": 134.5e6 * 2,
        "8bit": 134.5e6 * (1 + 2 / 32),
        "4bit": 106.2e6 * (0.5 + 4 / 32) + 28.3e6 * (1 + 2 / 32),
    }
    results: dict[tuple[str, str], list[tuple[Measured, Measured]]] = {}
    for index in range(args.rounds):
        for precision in args.precisions:
            workloads = {
                f"{count} client{'s' * (count > 1)}, 64 + 64": Workload(
                    clients=count,
                    requests=max(count, round(REQUESTS[count] * args.scale)),
                    ignore_eos=True,
                    seed=index,
                    warmup=min(count, 4),
                )
                for count in args.clients
            }
            workloads[f"prompt of {LONG_PROMPT}"] = Workload(
                clients=1, requests=2, prompt_tokens=LONG_PROMPT, output_tokens=1, ignore_eos=True, seed=index, warmup=1
            )
            ours, theirs = (measure(command, list(workloads.values())) for command in commands(work, precision, args.llama_server))
            for name, pair in zip(workloads, zip(ours, theirs, strict=True), strict=True):
                results.setdefault((precision, name), []).append(pair)
    text = section(results, gb_per_s, weights)
    if args.dry:
        print(text)
    else:
        write_section(PAGE, "real", text)


if __name__ == "__main__":
    main()
