"""What a checkpoint is, read from its files without loading it, for `mm-gateway show`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mm_gateway.chat_templates.reasoning_formats.found import TemplateThoughts
from mm_gateway.chat_templates.templates import built_in_for
from mm_gateway.configuration.hub_names import gguf_parts
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import MemorySettings, Settings
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.runtime.checkpoints.files import checkpoint_folder, weight_files
from mm_gateway.runtime.checkpoints.gguf.folder import gguf_file
from mm_gateway.runtime.checkpoints.gguf.header import weights_header
from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed, estimate
from mm_gateway.runtime.model_loader import load_model_text, resolve_device
from mm_gateway.runtime.residency.factories import DeviceBudgets


@dataclass(frozen=True)
class ModelDescription:
    """A checkpoint.

    Attributes:
        folder: where its files are. architecture: its class in transformers. parameters: None where that class cannot tell.
        context_length: tokens. files: of weights, with their bytes; none: they are not downloaded. stored: how weights are written.
        device: that it would be loaded on. budget_bytes: for all models there. need: None where there are no weights.
        chat_template: where it comes from. tool_format: None: tools are refused, for `tools_refused`.
        thoughts: how the model writes them and what controls them.
    """

    folder: Path
    architecture: str
    parameters: int | None
    context_length: int
    files: dict[str, int]
    stored: str
    device: str
    budget_bytes: int
    need: MemoryNeed | None
    chat_template: str
    tool_format: str | None
    thoughts: str = "none, as far as the chat template shows"
    tools_refused: str = ""


def describe(config: ModelConfig, settings: Settings) -> ModelDescription:
    """Downloads what there is besides the weights.

    Raises:
        ModelLoadError: there is no such checkpoint, or it is none that generates text.
    """
    text = load_model_text(config)
    folder = checkpoint_folder(config, lambda _: None, weights=False)
    checkpoint = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    device = resolve_device(config.device)
    budget = _budget(settings.memory, str(device))
    packed = gguf_file(folder)
    names = weight_files([path.name for path in folder.iterdir()]) if packed is None else gguf_parts(packed.name)
    files = {name: (folder if packed is None else packed.parent).joinpath(name).stat().st_size for name in sorted(names)}
    need = estimate(folder, config, settings.engine, device_type=device.type, budget_bytes=budget) if files else None
    tool_format, refused = None, ""
    try:
        tool_format = text.chat.tool_format.name
    except UnsupportedParameterError as error:
        refused = str(error)
    return ModelDescription(
        folder=folder,
        architecture=", ".join(checkpoint.get("architectures") or [checkpoint.get("model_type", "unknown")]),
        parameters=_parameters(folder),
        context_length=text.context_length,
        files=files,
        stored=_stored(checkpoint) if packed is None else _stored_in(packed),
        device=str(device),
        budget_bytes=budget,
        need=need,
        chat_template=_template(config, text.has_own_template, checkpoint),
        tool_format=tool_format,
        tools_refused=refused,
        **({"thoughts": _in_words(text.chat.thoughts)} if text.chat.thoughts is not None else {}),
    )


def _in_words(thoughts: TemplateThoughts) -> str:
    told = thoughts.told()
    controls = ", ".join(told["controls"]) or "a budget alone"
    return f"{told['format']}, controlled by {controls}; {'' if told['history'] else 'not '}read again in later turns"


def _budget(memory: MemorySettings, device: str) -> int:
    return DeviceBudgets(memory.memory_threshold, memory.budget_bytes)(device)


def _parameters(folder: Path) -> int | None:
    """Counted on the model built without memory, so that packed weights and tied ones count as what they stand for."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True)).num_parameters()
    except Exception:  # noqa: BLE001 - code of a checkpoint that is not run here, in whatever words
        return None


def _stored(checkpoint: dict[str, Any]) -> str:
    """Type of the weights, or the quantization that they are packed in."""
    quantization = checkpoint.get("quantization_config")
    if isinstance(quantization, dict):
        bits = f" {quantization['bits']} bit" if "bits" in quantization else ""
        return f"{quantization.get('quant_method', 'quantized')}{bits}"
    text = checkpoint.get("text_config")
    inner = text if isinstance(text, dict) else {}
    return str(next((value for part in (checkpoint, inner) for key in ("dtype", "torch_dtype") if (value := part.get(key))), "float32"))


def _stored_in(file: Path) -> str:
    """The format that takes most of a GGUF file's bytes."""
    sizes: Counter[str] = Counter()
    for tensor in weights_header(file).tensors.values():
        sizes[tensor.kind.name] += tensor.nbytes
    return f"GGUF, {sizes.most_common(1)[0][0]}"


def _template(config: ModelConfig, has_own: bool, checkpoint: dict[str, Any]) -> str:
    if config.chat_template is not None:
        return f"{config.chat_template} (chat_template)"
    if has_own:
        return "the checkpoint's own"
    built_in = built_in_for(config.model_type, str(checkpoint.get("model_type", "")))
    return f"{built_in.name} (built in)" if built_in is not None else "none: chats are refused unless chat_template or model_type names one"
