"""Variants of quantized checkpoints that are proved to be read: the tests run over this table, and docs/models.md is made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from mm_gateway.configuration.model_config import Quantization
from tests.support.gptq_checkpoint import quantize_checkpoint
from tests.support.quantized.awq import write_awq
from tests.support.quantized.bitsandbytes import write_bitsandbytes
from tests.support.quantized.compressed import write_float, write_mixed, write_packed, write_w8a8
from tests.support.quantized.fp8 import write_fp8
from tests.support.quantized.mxfp4 import write_mxfp4
from tests.support.quantized.torchao import write_torchao

Family = Literal["Llama", "Llama, tied", "GPT-2"]


@dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        format: as `quantization` names it. variant: for people. held: how a CPU holds its layers by default.
        write: quantizes the checkpoint in a folder, and returns what it stands for. families: of the checkpoints that it is tried with.
        proofs: by the test that gives each, `module.function`. on_cuda: what is meant to happen there.
    """

    format: Quantization
    variant: str
    write: Callable[[Path], dict[str, torch.Tensor]]
    held: Literal["int4", "int8", "16 bits", "int4, int8"]
    families: tuple[Family, ...] = ("Llama",)
    proofs: Mapping[str, str] = field(default_factory=lambda: PROOFS)
    on_cuda: Literal["packed", "unpacked", "refused"] = "packed"


_TESTS = "tests.runtime.checkpoints.quantized"
PROOFS: Mapping[str, str] = {
    f"{_TESTS}.test_published.test_blocks_and_numbers_are_those_that_are_meant": "every weight",
    f"{_TESTS}.test_published.test_in_fp32_it_computes_and_writes_what_is_meant": "logits and greedy text",
    f"{_TESTS}.test_published.test_by_default_it_is_held_as_it_is_stored_and_takes_the_memory_that_was_foreseen": "memory within 5 %",
}
_OF_EXPERTS: Mapping[str, str] = {
    f"{_TESTS}.test_mxfp4.test_experts_are_what_their_blocks_and_exponents_stand_for": "every weight, memory within 5 %",
    f"{_TESTS}.test_mxfp4.test_its_attention_is_the_reason_that_it_is_refused_for": "that gpt-oss itself is refused",
}

_BNB4 = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16}

ROWS: tuple[Row, ...] = (
    Row(
        "gptq",
        "4 bits, symmetric",
        partial(quantize_checkpoint, group_size=96),
        "int4",
        ("Llama", "Llama, tied"),
    ),
    Row("gptq", "4 bits, zero points", partial(quantize_checkpoint, group_size=96, sym=False), "int8"),
    Row("gptq", "4 bits, inputs reordered (`desc_act`)", partial(quantize_checkpoint, group_size=96, desc_act=True), "16 bits"),
    Row("gptq", "3 bits", partial(quantize_checkpoint, group_size=32, bits=3), "int4"),
    Row("gptq", "8 bits, symmetric", partial(quantize_checkpoint, group_size=96, bits=8), "int8"),
    Row("awq", "4 bits, zero points", write_awq, "int8", ("Llama", "Llama, tied")),
    Row("awq", "4 bits, symmetric", partial(write_awq, zero_point=False), "int4"),
    Row("compressed-tensors", "w4a16, groups", write_packed, "int4", ("Llama", "Llama, tied")),
    Row("compressed-tensors", "w4a16, a scale for each output", partial(write_packed, size=None), "int4"),
    Row("compressed-tensors", "w4a16, zero points", partial(write_packed, symmetric=False), "int8", on_cuda="unpacked"),
    Row("compressed-tensors", "w4a16, inputs reordered (`actorder`)", partial(write_packed, reordered=True), "16 bits", on_cuda="unpacked"),
    Row("compressed-tensors", "w3a16, groups", partial(write_packed, bits=3, size=32), "int4"),
    Row("compressed-tensors", "w8a16, groups", partial(write_packed, bits=8), "int8"),
    Row("compressed-tensors", "w8a8, int8", write_w8a8, "int8"),
    Row("compressed-tensors", "w8a8, int8, scales in fp32", partial(write_w8a8, scale_dtype=torch.float32), "int8"),
    Row("compressed-tensors", "FP8, a scale for each tensor", partial(write_float, strategy="tensor"), "16 bits"),
    Row("compressed-tensors", "FP8, a scale for each output", partial(write_float, strategy="channel"), "16 bits"),
    Row("compressed-tensors", "FP8, blocks of 128×128", partial(write_float, strategy="block"), "16 bits"),
    Row("compressed-tensors", "int8 and w4a16 mixed, by patterns", write_mixed, "int4, int8"),
    Row("fp8", "blocks of 128×128", write_fp8, "16 bits", ("Llama", "Llama, tied")),
    Row("fp8", "a scale for each tensor", partial(write_fp8, block=None), "16 bits"),
    Row(
        "bitsandbytes",
        "nf4, double quantization",
        partial(write_bitsandbytes, **_BNB4, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
        "16 bits",
        ("Llama", "Llama, tied", "GPT-2"),
    ),
    Row("bitsandbytes", "fp4", partial(write_bitsandbytes, **_BNB4, bnb_4bit_quant_type="fp4"), "16 bits"),
    Row("bitsandbytes", "int8", partial(write_bitsandbytes, load_in_8bit=True), "int8", ("Llama", "GPT-2")),
    Row("mxfp4", "experts of gpt-oss", write_mxfp4, "16 bits", (), _OF_EXPERTS, on_cuda="refused"),
    Row("torchao", "Int8Tensor", partial(write_torchao, kind="Int8Tensor"), "int8", ("Llama", "Llama, tied")),
    Row("torchao", "IntxUnpackedToInt8Tensor, 4 bits", partial(write_torchao, kind="IntxUnpackedToInt8Tensor"), "int4"),
    Row("torchao", "Int4Tensor", partial(write_torchao, kind="Int4Tensor"), "16 bits"),
    Row("torchao", "Float8Tensor", partial(write_torchao, kind="Float8Tensor"), "16 bits"),
)
