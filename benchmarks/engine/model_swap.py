"""More models than fit: loads against the offline optimum, time to the first token cold and warm, and what the manager itself costs.

    python -m benchmarks.engine.model_swap

Clients ask in a closed loop for models of a Zipf-like mix; each request generates a few tokens. The offline optimum (Belady, IBM
Systems Journal 1966) knows the order in which requests arrived, serves it one by one, and evicts the model whose next request is
furthest away. We do not know the order, but may serve requests for models in memory while others wait. Writes the section `swap`
of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.checkpoints import XS, make_checkpoint
from benchmarks.support.measures import Percentiles, ratio
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.real_model_manager import RealModelManager

PAGE = DOCS / "benchmarks.md"
MODELS, ROOM, CLIENTS, REQUESTS = 8, 3, 8, 400
CONFIG = GenerationConfig(max_new_tokens=4, temperature=0, ignore_eos=True)


def belady_loads(order: Sequence[int], room: int) -> int:
    """Loads that the best eviction in hindsight needs for requests served in this order."""
    following: list[float] = [0.0] * len(order)
    seen: dict[int, int] = {}
    for position in range(len(order) - 1, -1, -1):
        following[position] = seen.get(order[position], float("inf"))
        seen[order[position]] = position
    resident: dict[int, float] = {}
    loads = 0
    for position, model in enumerate(order):
        if model not in resident:
            loads += 1
            if len(resident) == room:
                del resident[max(resident, key=lambda other: resident[other])]
        resident[model] = following[position]
    return loads


def lru_loads(order: Sequence[int], room: int) -> int:
    """Loads of plain least-recently-used, one by one."""
    resident: list[int] = []
    loads = 0
    for model in order:
        if model in resident:
            resident.remove(model)
        else:
            loads += 1
            del resident[: max(0, len(resident) - room + 1)]
        resident.append(model)
    return loads


def run_mix(configs: list[ModelConfig], seed: int) -> tuple[int, list[int], list[float], list[float]]:
    """(loads, models in order of arrival, seconds to the first token where the model was in memory, and where it was not)."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(configs))]
    wanted = iter(rng.choices(range(len(configs)), weights, k=REQUESTS))
    manager = RealModelManager(max_cached_models=ROOM, engine_settings=EngineSettings(max_running=8))
    order: list[int] = []
    warm: list[float] = []
    cold: list[float] = []
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                index = next(wanted, None)
                if index is None:
                    return
                order.append(index)
                there = manager.status(configs[index]).state in ("ready", "busy")
                future = manager.acquire(configs[index])
            started_s = time.perf_counter()
            with future.result() as lease:
                pieces = lease.engine.generate_stream(f"Hello {index}", CONFIG)
                next(pieces, None)
                (warm if there else cold).append(time.perf_counter() - started_s)
                for _ in pieces:
                    continue

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loads = manager.stats().loads
    manager.close()
    return loads, order, warm, cold


def warm_cost_us(config: ModelConfig, times: int = 20_000) -> float:
    """Microseconds of one acquire and release of a model in memory."""
    manager = RealModelManager(engine_settings=EngineSettings(max_running=8))
    manager.load_model(config)
    started_s = time.perf_counter()
    for _ in range(times):
        manager.acquire(config).result().release()
    cost = (time.perf_counter() - started_s) / times * 1e6
    manager.close()
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    folder = make_checkpoint(XS, args.work.resolve())
    configs = [ModelConfig(model_name=f"model-{index}", path=str(folder), device="cpu") for index in range(MODELS)]
    rows: list[list[object]] = []
    warm: list[float] = []
    cold: list[float] = []
    for seed in range(args.rounds):
        loads, order, warm_here, cold_here = run_mix(configs, seed)
        warm, cold = warm + warm_here, cold + cold_here
        best, lru = belady_loads(order, ROOM), lru_loads(order, ROOM)
        rows.append([seed, loads, best, f"{ratio(loads, best):.2f}x", lru])
    head = ["round", "loads", "offline optimum, one by one", "loads against it", "least recently used, one by one"]
    text = f"{machine()}. {versions('mm-gateway', 'torch')}.\n\n"
    text += f"{MODELS} models of a Zipf mix, room for {ROOM}, {CLIENTS} clients, {REQUESTS} requests a round:\n\n"
    text += markdown_table(head, rows) + "\n\n"
    times = [["model in memory", *_milliseconds(warm)], ["model not in memory", *_milliseconds(cold)]]
    text += markdown_table(["time to the first token, XS", "p50, ms", "p95, ms"], times)
    text += f"\n\nThe manager's own cost of a request for a model in memory: {warm_cost_us(configs[0]):.0f} µs."
    write_section(PAGE, "swap", text, dry=args.dry)


def _milliseconds(samples: list[float]) -> tuple[float, float]:
    found = Percentiles.of(samples)
    return found.p50 * 1e3, found.p95 * 1e3


if __name__ == "__main__":
    main()
