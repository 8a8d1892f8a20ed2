"""What a draft model gives: tokens a second of one client and of four with it against without it, in turn; writes docs/benchmarks.md.

    python -m benchmarks.engine.draft_model [--rounds N]

Pairs of what is at hand. SmolLM2-135M in fp32 with itself in 4 bits: the same weights, which its file holds in 4 bits, so guesses are
right as often as rounding of activations lets them. And a deeper one: SmolLM2 with its layers four times, of which three add nothing, so
that its step costs as that of a model of four times the layers and it says what SmolLM2 says: what a large model costs beside a small
one that often agrees. Texts are compared token by token in every round.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from typing import Any

import torch

from benchmarks.accuracy.real_model import MODEL
from benchmarks.support.measures import median
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, ReasoningDelta, TextDelta, Usage
from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

PAGE = DOCS / "benchmarks.md"
TOKENS = 64
QUESTIONS = [
    "Why is the sky blue?",
    "Write a short story about a fox.",
    "How does a bicycle stay upright?",
    "Name five rivers and their seas.",
]


def load(**held: str) -> LoadedModel:
    return ModelLoader().load(ModelConfig(model_name="smollm2", path=MODEL, device="cpu", **held))  # type: ignore[arg-type]


def deeper(loaded: LoadedModel, times: int) -> LoadedModel:
    """The same text from so many times the layers: those that are put between add nothing."""
    model = loaded.model
    layers = list(model.model.layers)
    for layer in [*model.model.layers] * (times - 1):  # behind all of them, so that no cache holds weights that are read again
        idle = _sharing(layer)
        idle.self_attn = _sharing(layer.self_attn)
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = copy.deepcopy(getattr(layer, name))
            norm.weight.data.zero_()  # what is zero stays zero through projections without biases
            setattr(idle, name, norm)
        layers.append(idle)
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = ["full_attention"] * len(layers)
    return loaded


def _sharing(module: torch.nn.Module) -> Any:
    """A module with the parts of another one, of which some may be replaced."""
    found = copy.copy(module)
    found._modules = dict(module._modules)
    return found


def run(engine: InferenceEngine, clients: int, temperature: float, *, speculation: bool) -> tuple[float, list[list[int]], tuple[int, int]]:
    """Tokens a second, the texts, and (accepted, rejected) guesses."""
    config = GenerationConfig(max_new_tokens=TOKENS, temperature=temperature, seed=7, ignore_eos=True, speculation=speculation)
    prompts = [engine.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n") for question in QUESTIONS[:clients]]
    began = time.perf_counter()
    generations = [engine.submit([prompt], config) for prompt in prompts]
    texts, accepted, rejected = [], 0, 0
    for generation in generations:
        tokens: list[int] = []
        for event in generation:
            if isinstance(event, TextDelta | ReasoningDelta):
                tokens += event.token_ids
            elif isinstance(event, Usage):
                accepted, rejected = accepted + event.accepted_tokens, rejected + event.rejected_tokens
        texts.append(tokens)
    return sum(map(len, texts)) / (time.perf_counter() - began), texts, (accepted, rejected)


def rows_of(name: str, engine: InferenceEngine, rounds: int) -> list[list[str]]:
    rows: list[list[str]] = []
    for clients in (1, 4):
        for temperature in (0.0, 0.7):
            run(engine, clients, temperature, speculation=True)  # the costs are known afterwards
            ratios, speeds, counts, same = [], [], (0, 0), True
            for _ in range(rounds):
                without, expected, _ = run(engine, clients, temperature, speculation=False)
                with_draft, found, counts = run(engine, clients, temperature, speculation=True)
                ratios.append(with_draft / without)
                speeds.append(without)
                same &= found == expected
            assert same, "a text differs"
            guessed = sum(counts)
            share = f"{counts[0] / guessed:.0%} of {guessed}" if guessed else "nothing guessed"
            how = "greedy" if not temperature else f"temperature {temperature:g}"
            row = [
                name,
                str(clients),
                how,
                f"{median(speeds):.0f}",
                f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
                share,
            ]
            print(" | ".join(row), flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="the pair whose name holds this; nothing is written then")
    given = parser.parse_args()
    settings = EngineSettings(prompt_lookup=False, prefix_cache=False, max_running=8)
    pairs = {
        "fp32 with itself in 4 bits": lambda: dataclasses.replace(load(dtype="fp32"), draft=load()),
        "4 bits with itself": lambda: dataclasses.replace(load(), draft=load()),
        "120 layers in fp32 with 30 in 4 bits": lambda: dataclasses.replace(deeper(load(dtype="fp32"), 4), draft=load()),
    }
    rows: list[list[str]] = []
    for name, make in pairs.items():
        if given.only in name:
            engine = InferenceEngine.for_loaded_model(make(), settings)
            rows += rows_of(name, engine, given.rounds)
            engine.close()
    if not given.only:
        table = markdown_table(["pair", "clients", "text", "tok/s without", "with the draft", "guesses that were right"], rows)
        write_section(PAGE, "draft", f"{machine()}. {versions('torch', 'transformers')}.\n\n{table}")


if __name__ == "__main__":
    main()
