"""Which formats of weights there are; another one is a module here and a row, and its name in settings.Quantization."""

from __future__ import annotations

from pathlib import Path

from mm_gateway.configuration.model_config import ModelConfig, Quantization
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.families import family_of
from mm_gateway.runtime.checkpoints.gguf.folder import gguf_file
from mm_gateway.runtime.checkpoints.gguf.header import weights_header
from mm_gateway.runtime.checkpoints.quantized.awq import Awq
from mm_gateway.runtime.checkpoints.quantized.bitsandbytes import BitsAndBytes
from mm_gateway.runtime.checkpoints.quantized.compressed_tensors import CompressedTensors
from mm_gateway.runtime.checkpoints.quantized.eight_bit import EightBit
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of
from mm_gateway.runtime.checkpoints.quantized.four_bit import FourBit
from mm_gateway.runtime.checkpoints.quantized.fp8 import Fp8
from mm_gateway.runtime.checkpoints.quantized.gptq import Gptq
from mm_gateway.runtime.checkpoints.quantized.mxfp4 import Mxfp4
from mm_gateway.runtime.checkpoints.quantized.torchao import TorchAo
from mm_gateway.runtime.checkpoints.quantized.unread import Unread

FORMATS: dict[Quantization | None, WeightFormat] = {
    form.name: form
    for form in (
        WeightFormat(),
        EightBit(),
        FourBit(),
        Gptq(),
        Awq(),
        CompressedTensors(),
        Fp8(),
        Mxfp4(),
        BitsAndBytes(),
        TorchAo(),
    )
}


def stored_format(folder: Path) -> WeightFormat | None:
    """The format that a checkpoint's files are quantized in; None: they are not.

    Raises:
        ModelLoadError: a variant of it that cannot be read.
    """
    found = next((form for form in FORMATS.values() if form.recognises(folder)), None)
    method = quantization_of(folder).get("quant_method")
    return Unread(str(method)) if found is None and method is not None else found


def format_of(folder: Path, config: ModelConfig) -> WeightFormat:
    """How a model's weights are stored or will be quantized: what its files say, else what is configured.

    Raises:
        ModelLoadError: both contradict each other, or the files are of a variant that cannot be read.
    """
    wanted = FORMATS[config.quantization]
    if (file := gguf_file(folder)) is not None:
        blocks = sorted({tensor.kind.name for tensor in weights_header(file).tensors.values()} - {"F64", "F32", "F16", "BF16"})
        if blocks and wanted.name is not None:
            raise ModelLoadError(
                f"{config.model_name}: quantization: {wanted.name} is configured, but its GGUF file is quantized already "
                f"({', '.join(blocks)}); leave quantization out"
            )
    try:
        stored = stored_format(folder)
    except ModelLoadError as error:
        raise ModelLoadError(f"{config.model_name}: {error}") from error
    if stored is None:
        if wanted.published:
            raise ModelLoadError(
                f"{config.model_name}: quantization: {wanted.name} is configured, but the checkpoint is not quantized with {wanted.title}, "
                "nor with anything else; leave quantization out, or set 8bit or 4bit to quantize it"
            )
        return wanted
    if config.quantization is not None and not stored.is_meant_by(config.quantization, folder):
        raise ModelLoadError(
            f"{config.model_name}: quantization: {wanted.name} is configured, but the checkpoint is quantized with {stored.title} already; "
            + (f"set quantization: {stored.name}, or leave it out" if stored.name is not None else "leave quantization out")
        )
    return stored


def is_unpacked(folder: Path, form: WeightFormat, device_type: str) -> bool:
    """Whether the weights are read here, as what they stand for, rather than computed with by transformers as they are stored."""
    family = family_of(folder)
    # What is packed can be neither renamed into other layers nor split.
    converted = family is not None and family.converts_weights
    return form.published and (converted or not form.stays_packed(device_type) or not form.is_read_by_transformers(folder))
