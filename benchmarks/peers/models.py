"""The models of a comparison, each as a folder of safetensors and as GGUF files of the same weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from benchmarks.accuracy.real_model import LLAMA_CPP, make_file, make_model
from benchmarks.support.checkpoints import M, make_checkpoint
from tests.support.gguf_checkpoint import write_gguf

BYTES = {"f32": (4.0, 4.0), "f16": (2.0, 2.0), "bf16": (2.0, 2.0), "8bit": (1 + 2 / 32, 1 + 2 / 32), "4bit": (0.5 + 4 / 32, 1 + 2 / 32)}
"""Of one weight of a layer and of the output layer, scales of 32 included, as the gateway holds them."""


@dataclass(frozen=True)
class Model:
    """A model on disk.

    Attributes:
        name: as it is asked for. title: for tables. folder: safetensors in fp32, and `F32.gguf` beside them.
        layer_weights, head_weights: how many one step reads in matrices, and in the output layer.
        token_bytes: of one token's keys and values in fp32.
    """

    name: str
    title: str
    folder: Path
    layers: int
    layer_weights: int
    head_weights: int
    token_bytes: int

    def step_bytes(self, precision: str) -> float:
        """What one step reads of the weights, which is the same for one sequence and for many."""
        layer, head = BYTES[precision]
        return self.layer_weights * layer + self.head_weights * head

    def gguf(self, kind: str) -> Path:
        """The file in blocks of llama.cpp's own quantizers, made unless it is there.

        Raises:
            FileNotFoundError: llama.cpp's quantizers are not installed, and the file is not there.
        """
        if kind == "F32":
            return self.folder / "F32.gguf"
        if not (self.folder / f"{kind}.gguf").exists() and not LLAMA_CPP.exists():
            raise FileNotFoundError(f"{kind}.gguf takes llama.cpp's quantizers: make .compat/llama-cpp/.installed")
        return make_file(self.folder, kind, self.layers, LLAMA_CPP)

    def without_end(self) -> Path:
        """The same files, with nothing that says which token ends an answer: for servers that do not know `ignore_eos`."""
        folder = self.folder.with_name(f"{self.folder.name}-endless")
        folder.mkdir(exist_ok=True)
        for file in self.folder.iterdir():
            target = folder / file.name
            if file.suffix == ".gguf" or target.exists():
                continue
            if file.name in ("config.json", "generation_config.json"):
                content = {key: value for key, value in json.loads(file.read_text()).items() if key != "eos_token_id"}
                target.write_text(json.dumps(content | {"eos_token_id": None}))
            elif file.is_file():
                os.link(file, target)
        return folder


def _model_m(work: Path) -> Path:
    folder = make_checkpoint(M, work)
    if not (folder / "F32.gguf").exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        write_gguf(folder / "F32.gguf.part", AutoModelForCausalLM.from_pretrained(folder), tokenizer).rename(folder / "F32.gguf")
    return folder


MODELS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "smollm2": ("SmolLM2-135M-Instruct", make_model),
    "M": ("Model M", _model_m),
}


def open_model(name: str, work: Path) -> Model:
    """One of `MODELS`, made in `work` unless it is there."""
    title, make = MODELS[name]
    folder = make(work)
    config = json.loads((folder / "config.json").read_text())
    head = config["vocab_size"] * config["hidden_size"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no mapping
    layers = sum(shape[0] * shape[1] for key, shape in shapes.items() if len(shape) == 2 and ".layers." in key)
    width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
    return Model(name, title, folder, config["num_hidden_layers"], layers, head, config["num_hidden_layers"] * 2 * width * 4)
