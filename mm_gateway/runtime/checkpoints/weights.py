"""From a checkpoint's files to a transformers model with all its weights, in the configured precision or quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.families import family_of
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS, stored_format


def read_weights(
    folder: Path, config: ModelConfig, checkpoint: transformers.PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """The model in evaluation mode.

    Args:
        checkpoint: its configuration; what it says of quantization is removed where the weights come unquantized.
        dtype: of weights that are not quantized.

    Raises:
        ModelLoadError: files or packages are missing, weights are not the model's, or the quantization is another one.
    """
    form = FORMATS[config.quantization]
    _check_quantization(folder, config)
    family = family_of(folder)
    quantizer = form.quantizer(config, device, dtype)
    options: dict[str, Any] = {} if quantizer is None else {"quantization_config": quantizer}
    state = form.read(folder, config, device, dtype, converts_weights=family is not None and family.converts_weights)
    if state is not None and hasattr(checkpoint, "quantization_config"):
        delattr(checkpoint, "quantization_config")  # it must not look for what is no longer there
    model, report = _from_pretrained(folder, config, checkpoint, device, dtype, state, options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{config.model_name}: the checkpoint lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}…): "
            "files are missing, or it belongs to another architecture"
        )
    if state is not None:
        form.check_unexpected(sorted(report["unexpected_keys"]), state)
        if (folder / "generation_config.json").is_file():  # which comes with a folder only
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
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
            attn_implementation="sdpa",
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except ValueError as error:
        if "does not support an attention implementation" in str(error):
            architecture = ", ".join(checkpoint.architectures or [checkpoint.model_type])
            raise ModelLoadError(
                f"{config.model_name}: {architecture} computes its attention in a way that the engine cannot take over, so it is not served"
            ) from error
        raise
    except OSError as error:
        if "no file named" in str(error) or "not found" in str(error).lower():
            raise ModelLoadError(
                f"{config.model_name}: weight files are missing ({str(error).splitlines()[0][:300]}). Download the checkpoint again"
            ) from error
        raise


def _check_quantization(folder: Path, config: ModelConfig) -> None:
    wanted, stored = FORMATS[config.quantization], stored_format(folder)
    if wanted.published and stored is not wanted:
        raise ModelLoadError(
            f"{config.model_name}: quantization: {wanted.name} is configured, but the checkpoint is not quantized with {wanted.title}"
        )
    if stored is not None and stored is not wanted:
        raise ModelLoadError(f"{config.model_name}: the checkpoint is quantized with {stored.title}; set quantization: {stored.name}")
