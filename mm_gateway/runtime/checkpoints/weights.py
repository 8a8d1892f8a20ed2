"""From a checkpoint's files to a transformers model with all its weights, in the configured precision or quantization."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.gptq import GptqFormat, check_dropped, dequantized_state_dict, gptqmodel_usable, read_format

logger = logging.getLogger(__name__)


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
    gptq = read_format(folder)
    _check_quantization(config, checkpoint, gptq)
    options: dict[str, Any] = {}
    state: dict[str, torch.Tensor] | None = None
    # int8 on a CPU is the packed layers' business, after loading.
    if config.quantization == "4bit" or (config.quantization == "8bit" and device.type != "cpu"):
        options["quantization_config"] = _bitsandbytes_config(config, dtype)
    elif gptq is not None and (checkpoint.model_type == "qwen" or not gptqmodel_usable(device)):
        logger.warning(
            "%s: its GPTQ weights are held as %s, %d times their size in the files; on a GPU the package gptqmodel keeps them packed",
            config.model_name,
            str(dtype).removeprefix("torch."),
            8 * dtype.itemsize // gptq.bits,
        )
        state = dequantized_state_dict(folder, gptq, dtype)
        delattr(checkpoint, "quantization_config")  # it must not look for what is no longer there
    model, report = _from_pretrained(folder, config, checkpoint, device, dtype, state, options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{config.model_name}: the checkpoint lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}…): "
            "files are missing, or it belongs to another architecture"
        )
    if state is not None:
        check_dropped(sorted(report["unexpected_keys"]), state)
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


def _check_quantization(config: ModelConfig, checkpoint: transformers.PreTrainedConfig, gptq: GptqFormat | None) -> None:
    name = config.model_name
    if config.quantization == "gptq" and gptq is None:
        raise ModelLoadError(f"{name}: quantization: gptq is configured, but the checkpoint is not quantized with GPTQ")
    if config.quantization != "gptq" and gptq is not None:
        raise ModelLoadError(f"{name}: the checkpoint is quantized with GPTQ; set quantization: gptq")


def _bitsandbytes_config(config: ModelConfig, dtype: torch.dtype) -> transformers.BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError(
            f"{config.model_name}: quantization: {config.quantization} needs the package bitsandbytes: pip install 'mm-gateway[bnb]'"
        )
    # It logs a warning per layer and forward pass where a CPU has no fused kernel.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if config.quantization == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
