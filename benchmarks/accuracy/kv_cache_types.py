"""What keys and values of fewer bits cost and give, on a real model: `kv_cache_dtype`; writes a section of docs/accuracy.md.

    python -m benchmarks.accuracy.kv_cache_types

Quality is that of the text of `real_model_accuracy` in windows of 2,048 tokens, against the same weights with a cache of fp32. Speed is
that of decoding behind a prompt of 2,000 tokens, for one choice and for eight, in rounds that take the types in turn.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.accuracy.real_model import MODEL, PAGE, text
from benchmarks.support.measures import median
from benchmarks.support.tables import machine, markdown_table, versions, write_section
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, PromptTokens, TextDelta
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

WINDOW = 2048
PROMPT = 2000
TOKENS = 48
HEAD_DIM = 64
CHOICES = (1, 8)
HELD = {"fp32": {"dtype": "fp32"}, "Q4_1": {}}


def engine_of(held: dict[str, str], cells: str) -> InferenceEngine:
    loaded = ModelLoader().load(ModelConfig(model_name="smollm2", path=MODEL, device="cpu", kv_cache_dtype=cells, **held))  # type: ignore[arg-type]
    return InferenceEngine.for_loaded_model(loaded, EngineSettings(prompt_lookup=False))


def log_probabilities(engine: InferenceEngine, windows: list[list[int]]) -> torch.Tensor:
    """Of every token of the windows but the first ones."""
    found: list[float] = []
    for window in windows:
        config = GenerationConfig(max_new_tokens=0, prompt_logprobs=0)
        for event in engine.submit([window], config):
            if isinstance(event, PromptTokens):
                found += [token.logprob for token in event.logprobs if token.logprob is not None]
    return torch.tensor(found, dtype=torch.float64)


def decode_speed(engine: InferenceEngine, ids: list[int], choices: int) -> float:
    """Tokens per second of all choices together, from when each has begun to when the first one ends."""
    begun: set[int] = set()
    first_s = last_s = tokens = 0.0
    for event in engine.submit([ids], GenerationConfig(max_new_tokens=TOKENS, temperature=1.0, seed=0, n=choices, ignore_eos=True)):
        if isinstance(event, ChoiceFinished):
            break
        if isinstance(event, TextDelta):
            now_s = time.perf_counter()
            if len(begun) == choices:
                tokens += len(event.token_ids)
                last_s = now_s
            else:
                begun.add(event.index)
                first_s = now_s
    return tokens / (last_s - first_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/accuracy.md")
    args = parser.parse_args()
    rows: list[list[object]] = []
    for weights, held in HELD.items():
        engines = {cells: engine_of(held, cells) for cells in ("fp32", "fp16", "int8")}
        ids = engines["fp32"].encode(text())
        windows = [ids[first : first + WINDOW] for first in range(0, len(ids) - WINDOW // 2, WINDOW)]
        quality = {cells: log_probabilities(engine, windows) for cells, engine in engines.items()}
        speeds: dict[tuple[str, int], list[float]] = {}
        for _ in range(args.rounds):
            for choices in CHOICES:
                for cells, engine in engines.items():
                    speeds.setdefault((cells, choices), []).append(decode_speed(engine, ids[:PROMPT], choices))
        exact = quality["fp32"]
        for cells in engines:
            perplexity, fp32 = (-quality[cells].mean()).exp().item(), (-exact.mean()).exp().item()
            ratios = [f"{median(speeds[cells, choices]) / median(speeds['fp32', choices]):.2f}x" for choices in CHOICES]
            size = Cells[cells.upper()].head_bytes(HEAD_DIM) / Cells.FP32.head_bytes(HEAD_DIM)
            error = (quality[cells] - exact).abs().mean().item()
            rows.append([weights, cells, f"{size:.2f}x", f"{perplexity:.3f}", f"{perplexity / fp32 - 1:+.3%}", error, *ratios])
            print(rows[-1], flush=True)
        for engine in engines.values():
            engine.close()
    head = ["weights", "cache", "its memory", "perplexity", "to a cache of fp32", "mean error of log-probabilities"]
    head += [f"decoding, {choices} choice{'s' * (choices > 1)}" for choices in CHOICES]
    section = f"SmolLM2-135M-Instruct. {machine()}. {versions('mm-gateway', 'torch')}.\n\n{markdown_table(head, rows)}"
    write_section(PAGE, "kv cache", section, dry=args.dry)


if __name__ == "__main__":
    main()
