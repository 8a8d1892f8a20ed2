"""Tokens per second of the engine without HTTP: `python -m benchmarks.gateway.engine_alone CHECKPOINT WORKLOAD_JSON`; prints one number."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import uvloop

from benchmarks.support.workload import Workload
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, Usage
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader


async def measure(engine: InferenceEngine, workload: Workload) -> float:
    """A closed loop of clients that only read events."""
    config = GenerationConfig(max_new_tokens=workload.output_tokens, temperature=0, ignore_eos=True)

    async def client(indices: Iterator[int]) -> int:
        tokens = 0
        for index in indices:
            generation = engine.submit([engine.encode(workload.prompt(index))], config, loop=asyncio.get_running_loop())
            async for event in generation:
                if isinstance(event, Usage):
                    tokens += event.completion_tokens
        return tokens

    warmup = iter(range(-workload.warmup, 0))
    await asyncio.gather(*(client(warmup) for _ in range(workload.clients)))
    indices = iter(range(workload.requests))
    started_s = time.perf_counter()
    tokens = sum(await asyncio.gather(*(client(indices) for _ in range(workload.clients))))
    return tokens / (time.perf_counter() - started_s)


def main() -> None:
    checkpoint, workload = sys.argv[1], Workload(**json.loads(sys.argv[2]))
    loaded = ModelLoader().load(ModelConfig(model_name=checkpoint, device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    print(uvloop.run(measure(engine, workload)))
    engine.close()


if __name__ == "__main__":
    main()
