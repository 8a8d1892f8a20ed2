"""How far each precision's results are from fp32, and how often the company in a batch changes a seeded text; writes docs/accuracy.md.

    python -m benchmarks.accuracy.precisions

The reference is the model as transformers computes it in fp32. Weights are random, drawn ten times wider than usual so that the
distributions are as peaked as a trained model's; a trained model is usually less sensitive.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.support.checkpoints import M, make_checkpoint
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from benchmarks.support.workload import WORDS
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

PAGE = DOCS / "accuracy.md"
PATHS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "fp32"},
    "fp16": {"dtype": "fp16"},
    "bf16": {"dtype": "bf16"},
    "8bit": {"quantization": "8bit"},
    "4bit": {"quantization": "4bit"},
}
PROMPTS = 32
TOKENS = 64


def peaked(checkpoint: Path, work: Path) -> Path:
    """The checkpoint with an output layer of ten times the spread."""
    folder = work / f"{checkpoint.name}-peaked"
    if not (folder / "config.json").exists():
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
        head = model.get_output_embeddings()
        assert isinstance(head, torch.nn.Linear)
        head.weight.data *= 10
        model.save_pretrained(folder)
        for file in checkpoint.glob("tokenizer*"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def prompts_of(engine: InferenceEngine) -> list[list[int]]:
    rng = random.Random(0)
    return [engine.encode(" " + " ".join(rng.choices(WORDS, k=rng.randrange(8, 64)))) for _ in range(PROMPTS)]


def texts(engine: InferenceEngine, prompts: list[list[int]], config: GenerationConfig) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()] * len(prompts)
    for event in engine.submit(prompts, config):
        if isinstance(event, TextDelta):
            found[event.index] += event.token_ids
    return found


def common_length(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Tokens until the first difference."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def logprob_error(folder: Path, path: dict[str, Any], prompts: list[list[int]]) -> list[float]:
    """Mean and largest difference of log-probabilities at all positions, KL divergence, agreement of the first choice."""
    exact = AutoModelForCausalLM.from_pretrained(folder)
    model = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", **path)).model
    errors, largest, divergences, agreements = [], 0.0, [], []
    with torch.inference_mode():
        for ids in prompts:
            expected = exact(torch.tensor([ids])).logits[0].log_softmax(-1)
            found = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            # Of tokens that can occur: the far tail says nothing.
            common = expected > -10
            difference = (found - expected).abs()[common]
            errors.append(difference.mean().item())
            largest = max(largest, difference.max().item())
            divergences.append((expected.exp() * (expected - found)).sum(-1).mean().item())
            agreements.append((expected.argmax(-1) == found.argmax(-1)).float().mean().item())
    return [sum(errors) / PROMPTS, largest, sum(divergences) / PROMPTS, sum(agreements) / PROMPTS]


def company(engine: InferenceEngine, prompts: list[list[int]]) -> float:
    """Share of seeded texts that are the same alone and in a batch with 31 others."""
    config = GenerationConfig(max_new_tokens=TOKENS, temperature=1.0, seed=5, ignore_eos=True)
    alone = [texts(engine, [prompt], config)[0] for prompt in prompts]
    generations = [engine.submit([prompt], config) for prompt in prompts]
    together = [tuple(t for event in each if isinstance(event, TextDelta) for t in event.token_ids) for each in generations]
    return sum(a == b for a, b in zip(alone, together, strict=True)) / PROMPTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/accuracy.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    folder = peaked(make_checkpoint(M, work), work)
    rows: list[list[object]] = []
    greedy = GenerationConfig(max_new_tokens=TOKENS, temperature=0, ignore_eos=True)
    exact: list[tuple[int, ...]] = []
    for name, path in PATHS.items():
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", **path))
        engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(prefix_cache=False))
        prompts = prompts_of(engine)
        found = texts(engine, prompts, greedy)
        exact = exact or found
        agreeing = sum(common_length(a, b) for a, b in zip(exact, found, strict=True))
        stable = company(engine, prompts)
        engine.close()
        rows.append([name, *logprob_error(folder, path, prompts), agreeing / PROMPTS, f"{stable:.0%}"])
        print(rows[-1], flush=True)
    head = ["weights", "mean error of log-probabilities", "largest", "KL divergence", "same first choice"]
    head += [f"greedy tokens until the first difference, of {TOKENS}", "seeded texts the same alone and among 32"]
    text = f"{machine()}. {versions('mm-gateway', 'torch', 'transformers')}.\n\n{markdown_table(head, rows)}"
    write_section(PAGE, "accuracy", text, dry=args.dry)


if __name__ == "__main__":
    main()
