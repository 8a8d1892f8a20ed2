"""From a checkpoint's files to a transformers model with all its weights, in the configured precision or quantization."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.experts_apart import ExpertsApart
from mm_gateway.runtime.checkpoints.families.families import family_of
from mm_gateway.runtime.checkpoints.gguf.folder import gguf_file
from mm_gateway.runtime.checkpoints.gguf.header import weights_header
from mm_gateway.runtime.checkpoints.packed_linear import Weights, keeps_blocks
from mm_gateway.runtime.checkpoints.packing import pack_layers, pack_model, rest_to_fp32
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.formats import format_of, is_unpacked
from mm_gateway.runtime.checkpoints.quantized.source import QuantizedSource
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.checkpoints.stored.tensor_source import GgufSource, TensorSource
from mm_gateway.runtime.checkpoints.streamed import NotStreamable, attention_of, streamed_weights

logger = logging.getLogger(__name__)

Building = Callable[[], AbstractContextManager[None]]


def read_model(
    folder: Path,
    config: ModelConfig,
    checkpoint: transformers.PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    packed: Weights | None,
    building: Building,
    report: Callable[[float], object],
) -> PreTrainedModel:
    """The model in evaluation mode, read weight by weight where its files allow it, else by transformers as a whole.

    Args:
        checkpoint: its configuration; what it says of quantization is removed where the weights come unquantized.
        dtype: of weights that are not quantized. packed: how linear layers are packed for a CPU; None: not at all.
        building: entered while transformers builds a model, which two threads must not do at once.
        report: told which share of the weights has been read, from 0 to 1.

    Raises:
        ModelLoadError: files or packages are missing, weights are not the model's, or the quantization is another one.
    """
    form = format_of(folder, config)
    source = _source(folder, config, checkpoint, form, device, packed)
    if isinstance(source, QuantizedSource):
        if hasattr(checkpoint, "quantization_config"):
            delattr(checkpoint, "quantization_config")  # it must not look for what is no longer there
        if device.type == "cuda":
            needs = ", ".join(form.packages) + (", USE_HUB_KERNELS=1" if form.hub_kernels else "")
            why = f"what keeps them packed on a GPU is not there ({needs})"
            if not form.is_read_by_transformers(folder):
                why = "transformers does not read this variant of them packed"
            logger.warning("%s: its %s weights are held as %s; %s", config.model_name, form.title, str(dtype).removeprefix("torch."), why)
    model = _read_streamed(folder, config, checkpoint, source, device, dtype, packed, building, report)
    if model is None:
        with building():
            model = _read_whole(folder, config, checkpoint, form, source, device, dtype)
        if packed is not None:
            pack_model(model, packed)
    return model


def _source(
    folder: Path,
    config: ModelConfig,
    checkpoint: transformers.PreTrainedConfig,
    form: WeightFormat,
    device: torch.device,
    packed: Weights | None,
) -> TensorSource | None:
    """Where the weights are read from; None: transformers reads them by itself."""
    # A type that is asked for by name is what layers are held in; by default they stay in the blocks that they are stored in.
    keep_blocks = packed is not None and keeps_blocks(config)
    if (file := gguf_file(folder)) is not None:
        return GgufSource(weights_header(file), keep_blocks=keep_blocks)
    if is_unpacked(folder, form, device.type):
        if type(checkpoint) not in AutoModelForCausalLM._model_mapping:
            raise ModelLoadError(
                f"{config.model_name}: its weights are quantized with {form.title}, which is not read for a network that comes as code of "
                "the checkpoint"
            )
        stored = StoredTensors(folder)
        try:
            return QuantizedSource(stored, form.layers(stored), keep_blocks=keep_blocks)
        except ModelLoadError as error:
            raise ModelLoadError(f"{config.model_name}: {error}") from error
    # On a GPU transformers places tensor by tensor too, and knows which of them stay in fp32.
    ordinary = packed is not None and not config.trust_remote_code and family_of(folder) is None
    if not ordinary or not any(folder.glob("*.safetensors")):
        return None
    try:
        return ExpertsApart(StoredTensors(folder))
    except ModelLoadError as error:
        raise ModelLoadError(f"{config.model_name}: {error}") from error


def _read_streamed(
    folder: Path,
    config: ModelConfig,
    checkpoint: transformers.PreTrainedConfig,
    source: TensorSource | None,
    device: torch.device,
    dtype: torch.dtype,
    packed: Weights | None,
    building: Building,
    report: Callable[[float], object],
) -> PreTrainedModel | None:
    """None where transformers has to read the files, or to rename or join what was read from them."""
    if source is None or (isinstance(source, QuantizedSource) and family_of(folder) is not None):
        return None
    try:
        with building():
            streamed = streamed_weights(folder, checkpoint, source, dtype, report)
    except ValueError as error:
        raise _refused(error, config, checkpoint) from error
    except NotStreamable as reason:
        if isinstance(source, GgufSource):
            raise ModelLoadError(f"{config.model_name}: its GGUF file does not fit {checkpoint.model_type}: {reason}") from None
        logger.debug("%s is read by transformers: %s", config.model_name, reason)
        return None
    if isinstance(source, QuantizedSource):
        source.check_unused(streamed.unused)
    elif isinstance(source, GgufSource) and streamed.unused:
        raise ModelLoadError(
            f"{config.model_name}: its GGUF file holds {len(streamed.unused)} tensors that {checkpoint.model_type} has no place for "
            f"({', '.join(streamed.unused[:3])}), so it would not compute what it was made for"
        )
    else:
        _tell_unused(config, streamed.unused)
    if packed is not None:
        pack_layers(streamed.model, packed, streamed)
    # What is left on a CPU is computed with in fp32, and may be stored so where the layers are not.
    streamed.fill(device, dtype if packed is None else torch.float32)
    if packed is not None:
        rest_to_fp32(streamed.model)
    return streamed.model


def _read_whole(
    folder: Path,
    config: ModelConfig,
    checkpoint: transformers.PreTrainedConfig,
    form: WeightFormat,
    source: TensorSource | None,
    device: torch.device,
    dtype: torch.dtype,
) -> PreTrainedModel:
    quantizer = form.quantizer(config, device, dtype)
    options: dict[str, Any] = {} if quantizer is None else {"quantization_config": quantizer}
    state = None
    if isinstance(source, QuantizedSource):
        state = {name: source.read(name, dtype) for name in source.shapes}
    model, report = _from_pretrained(folder, config, checkpoint, device, dtype, state, options)
    if report["mismatched_keys"]:
        name, stored, wanted = min(report["mismatched_keys"])
        raise ModelLoadError(
            f"{config.model_name}: {name} is stored as {list(stored)}, but config.json asks for {list(wanted)}: "
            "are these files of one checkpoint?"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{config.model_name}: the checkpoint lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}…): "
            "files are missing, or it belongs to another architecture"
        )
    if isinstance(source, QuantizedSource):
        source.check_unused(sorted(name for name in report["unexpected_keys"] if name in source.shapes))
        if (folder / "generation_config.json").is_file():  # which comes with a folder only
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    else:
        _tell_unused(config, sorted(report["unexpected_keys"]))
    return model.eval().requires_grad_(False)


def _from_pretrained(
    folder: Path,
    config: ModelConfig,
    checkpoint: transformers.PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    state: dict[str, torch.Tensor] | None,
    options: dict[str, Any],
) -> tuple[PreTrainedModel, dict[str, Any]]:
    source: Any = folder
    loader: Any = AutoModelForCausalLM
    if state is not None:
        # Weights in memory are taken by the model's own class only.
        source, loader = None, AutoModelForCausalLM._model_mapping[type(checkpoint)]
    try:
        # With output_loading_info a pair comes back, which the annotation does not say.
        return loader.from_pretrained(
            source,
            config=checkpoint,
            state_dict=state,
            dtype=dtype,
            device_map={"": device},
            attn_implementation=attention_of(checkpoint),
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which are told in our own words
            **options,
        )
    except ValueError as error:
        raise _refused(error, config, checkpoint) from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            raise ModelLoadError(
                f"{config.model_name}: its weights are a pickle with more in it than tensors, which could run any code, so it is not read. "
                "Take the checkpoint as safetensors"
            ) from error
        if isinstance(error, pickle.UnpicklingError) or "PytorchStreamReader" in str(error):
            raise ModelLoadError(f"{config.model_name}: a weight file is cut off or damaged. Download the checkpoint again") from error
        raise
    except OSError as error:
        if "no file named" in str(error) or "not found" in str(error).lower():
            raise ModelLoadError(
                f"{config.model_name}: weight files are missing ({str(error).splitlines()[0][:300]}). Download the checkpoint again"
            ) from error
        raise


def _tell_unused(config: ModelConfig, names: Sequence[str]) -> None:
    """Of weights as they are transformers leaves out what a model has no place for, and so do we; nobody should have to guess."""
    if names:
        logger.warning("%s: %d tensors of its files have no place in the model: %s", config.model_name, len(names), ", ".join(names[:3]))


def _refused(error: ValueError, config: ModelConfig, checkpoint: transformers.PreTrainedConfig) -> Exception:
    """What transformers says of a network whose attention nobody else may compute, in words for whoever configured it."""
    if "does not support an attention implementation" not in str(error):
        return error
    architecture = ", ".join(checkpoint.architectures or [checkpoint.model_type])
    return ModelLoadError(
        f"{config.model_name}: {architecture} computes its attention in a way that the engine cannot take over, so it is not served"
    )
