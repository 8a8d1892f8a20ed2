"""How fast a model is on this machine, by the gateway's own engine, and what the memory allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import msgspec
import torch

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader

PROMPT_TOKENS, OUTPUT_TOKENS = 64, 64
LONG_PROMPT = 512
LONGEST_S = 8.0
"""Of one measurement: what is not done by then is cut off, and rates are of what was."""


@dataclass(frozen=True)
class Speed:
    """prompt_per_s, output_per_s: tokens, of all clients together. first_s: until the last client had its first token."""

    prompt_per_s: float
    output_per_s: float
    first_s: float


@dataclass(frozen=True)
class ModelSpeed:
    """What was measured of a model.

    Attributes:
        by_clients: with prompts and outputs of 64 tokens. prompt_tokens: of the long prompt, read at prompt_per_s.
        memory_gb_per_s: what reading the memory gives with all cores; None: the model is on a GPU.
    """

    device: str
    weight_bytes: int
    load_s: float
    by_clients: dict[int, Speed]
    prompt_tokens: int
    prompt_per_s: float
    memory_gb_per_s: float | None


def measure_model(config: ModelConfig, settings: EngineSettings, clients: AbstractSequence[int]) -> ModelSpeed:
    """Load a model and measure it, in about half a minute.

    Raises:
        ModelLoadError: it cannot be loaded. OutOfMemoryError: it does not fit.
    """
    began_s = time.perf_counter()
    loaded = ModelLoader().load(msgspec.structs.replace(config, speculative_model=None))
    # Guesses would measure how much random tokens repeat themselves.
    engine = InferenceEngine.for_loaded_model(loaded, msgspec.structs.replace(settings, prefix_cache=False, prompt_lookup=False))
    load_s = time.perf_counter() - began_s
    try:
        longest = max(1, loaded.context_length - OUTPUT_TOKENS)
        prompt, long_prompt = min(PROMPT_TOKENS, longest), min(LONG_PROMPT, longest)
        measure(engine, 1, prompt, 4)  # kernels and pages are warm afterwards
        return ModelSpeed(
            device=loaded.device.type,
            weight_bytes=loaded.weight_bytes,
            load_s=load_s,
            by_clients={count: measure(engine, count, prompt, OUTPUT_TOKENS) for count in clients},
            prompt_tokens=long_prompt,
            prompt_per_s=measure(engine, 1, long_prompt, 1).prompt_per_s,
            memory_gb_per_s=memory_gb_per_s() if loaded.device.type == "cpu" else None,
        )
    finally:
        engine.close()


def measure(engine: InferenceEngine, clients: int, prompt_tokens: int, output_tokens: int) -> Speed:
    """Clients that ask at the same time, each with a prompt of its own."""
    config = GenerationConfig(max_new_tokens=output_tokens, temperature=0, ignore_eos=True)
    firsts, counts = [0.0] * clients, [0] * clients
    began_s = time.perf_counter()

    def ask(client: int) -> None:
        random = torch.Generator().manual_seed(client)
        ids = torch.randint(engine.vocab_size // 10, engine.vocab_size // 2, (prompt_tokens,), generator=random).tolist()
        generation = engine.submit([ids], config)
        for event in generation:
            if isinstance(event, TextDelta) and event.token_ids:
                firsts[client] = firsts[client] or time.perf_counter() - began_s
                counts[client] += len(event.token_ids)
                if time.perf_counter() - began_s > LONGEST_S:
                    generation.cancel()
                    return

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first_s, all_s = max(firsts), time.perf_counter() - began_s
    # The first tokens come of the prompt.
    decoded, decoding_s = sum(counts) - clients, max(all_s - first_s, 1e-9)
    return Speed(clients * prompt_tokens / first_s, decoded / decoding_s if decoded else 0.0, first_s)


def memory_gb_per_s() -> float:
    """What reading gives with all cores: the best of five sums over half a gigabyte."""
    numbers, times = torch.ones(2**27, dtype=torch.float32), list[float]()
    for _ in range(5):
        began_s = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - began_s)
    return numbers.nbytes / min(times) / 1e9
