"""Linear layers of 16 to 4 bits against FBGEMM's of 16 and oneDNN's of 32, for one to 256 rows; writes a section of docs/benchmarks.md.

    python -m benchmarks.engine.block_linear

Each figure is the shortest of many runs: other work on the machine can only lengthen one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.packed_linear import PackedLinearFp16, Weights, packed_linear
from mm_gateway.runtime.kernels.blocks import Blocks
from mm_gateway.runtime.kernels.library import library, use_kernels

PAGE = DOCS / "benchmarks.md"
OUTPUTS, INPUTS = 4096, 2048
ROWS = (1, 4, 16, 64, 256)
BITS: tuple[Weights, ...] = ("fp16", "int8", "int4")
KINDS = {"Q4_K": GGMLQuantizationType.Q4_K, "Q5_K": GGMLQuantizationType.Q5_K, "Q6_K": GGMLQuantizationType.Q6_K}


def shortest_us(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, seconds: float) -> float:
    layer(x)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        layer(x)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def random_blocks(kind: GGMLQuantizationType) -> Blocks:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(0).integers(0, 60, (OUTPUTS * INPUTS // block, block_bytes), dtype=np.uint8)  # scales far from infinity
    return KEPT[kind].blocks(stored, OUTPUTS, INPUTS)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = library()
    if loaded is None:
        raise SystemExit("there are no kernels on this machine")
    torch.manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS) / INPUTS**0.5
    layers = {weights: packed_linear(weight, None, weights) for weights in ("fp32", *BITS)}
    layers |= {"FBGEMM fp16": PackedLinearFp16(weight, None)}
    layers |= {name: packed_linear(random_blocks(kind), None, "fp16") for name, kind in KINDS.items()}
    inputs = [torch.randn(count, INPUTS) for count in ROWS]
    times = {name: [shortest_us(layers[name], x, args.seconds) for x in inputs] for name in ("fp32", "FBGEMM fp16")}
    rows: list[list[object]] = [[f"{name}, µs", *found] for name, found in times.items()]
    for kernels in ("amx", "avx512_vnni", "avx_vnni", "avx2", "portable"):
        try:
            use_kernels(loaded, kernels)
        except ValueError:
            continue
        for weights in (*BITS, *KINDS):
            found = [shortest_us(layers[weights], x, args.seconds) for x in inputs]
            ratios = [f"{us:,.0f} ({half / us:.1f}x)" for us, half in zip(found, times["FBGEMM fp16"], strict=True)]
            rows.append([f"{weights}, {kernels}, µs (FBGEMM / it)", *ratios])
    use_kernels(loaded, "")
    table = markdown_table([f"{OUTPUTS} x {INPUTS} weights", *(f"{count} row{'s' * (count > 1)}" for count in ROWS)], rows)
    section = f"{machine()}, {torch.get_num_threads()} thread{'s' * (args.threads > 1)}. {versions('mm-gateway', 'torch')}.\n\n{table}"
    write_section(PAGE, "linear layers", section, dry=args.dry)


if __name__ == "__main__":
    main()
