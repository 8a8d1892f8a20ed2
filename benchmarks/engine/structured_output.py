"""What following a JSON schema costs: tokens per second of a batch that is free and of one whose every choice follows a schema.

    python -m benchmarks.engine.structured_output

Rounds alternate between the two. The schema is an array of strings without end, so that both generate to their limit. Writes the
section `grammar` of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks.support.checkpoints import XS, M, Shape, make_checkpoint
from benchmarks.support.measures import median, ratio
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, Grammar, Usage
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

PAGE = DOCS / "benchmarks.md"
SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1000}
CHOICES, TOKENS = 16, 64


def tokens_per_s(engine: InferenceEngine, grammar: Grammar | None, seed: int) -> float:
    """Of CHOICES choices of one prompt."""
    config = GenerationConfig(n=CHOICES, max_new_tokens=TOKENS, seed=seed, ignore_eos=True, grammar=grammar)
    started_s = time.perf_counter()
    usage = [event for event in engine.submit([engine.encode(" the")], config) if isinstance(event, Usage)][-1]
    return usage.completion_tokens / (time.perf_counter() - started_s)


def measure(shape: Shape, work: Path, rounds: int) -> list[object]:
    loaded = ModelLoader().load(ModelConfig(model_name=str(make_checkpoint(shape, work)), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=CHOICES))
    grammar = Grammar("json_schema", json.dumps(SCHEMA))
    tokens_per_s(engine, grammar, 0)  # the tokenizer's first use, and kernels
    free, bound = [], []
    for seed in range(rounds):
        free.append(tokens_per_s(engine, None, seed))
        bound.append(tokens_per_s(engine, grammar, seed))
    engine.close()
    return [shape.name, median(free), median(bound), f"{ratio(median(bound), median(free)):.2f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = [measure(shape, args.work.resolve(), args.rounds) for shape in (XS, M)]
    table = markdown_table([f"{CHOICES} choices of {TOKENS} tokens", "free, tok/s", "following a schema, tok/s", "ratio"], rows)
    text = f"{machine()}. {versions('mm-gateway', 'torch', 'llguidance')}.\n\n{table}"
    write_section(PAGE, "grammar", text, dry=args.dry)


if __name__ == "__main__":
    main()
