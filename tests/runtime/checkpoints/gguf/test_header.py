"""The head of a GGUF file: what is read, and that damage of any kind is a clear error."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers.integrations.gguf.dequant import GGML_NAME, dequantize

from mm_gateway.runtime.checkpoints.gguf.header import read_header, weights_header
from mm_gateway.runtime.checkpoints.gguf.tensors import read_tensor


def written(file: Path, **tensors: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "é", "日本"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_head_is_read_once_until_the_file_changes(tmp_path: Path) -> None:
    data = np.zeros((3, 4), dtype=np.float32)
    file = written(tmp_path / "m.gguf", weight=data)
    header = weights_header(file)
    assert weights_header(file) is header
    assert header.get("block_count") == 3
    assert "tokenizer.ggml.tokens" not in header.metadata
    written(file, weight=data, more=data)
    assert set(weights_header(file).tensors) == {"weight", "more"}


def test_metadata_and_tensors_are_as_written(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    header = read_header(written(tmp_path / "m.gguf", weight=data, half=data.astype(np.float16)))
    assert header.architecture == "llama"
    assert header.get("block_count") == 3
    assert header.metadata["tokenizer.ggml.tokens"] == ["a", "é", "日本"]
    assert header.metadata["tokenizer.ggml.scores"] == [0.5, -1.0, 2.0]
    assert header.tensors["weight"].shape == (3, 4)
    assert read_tensor(header, header.tensors["weight"]).tolist() == data.tolist()
    assert read_tensor(header, header.tensors["half"]).dtype == torch.float16


@pytest.mark.parametrize("kind", sorted(GGML_NAME.values()))
def test_each_kind_of_blocks_is_unpacked_as_another_reader_does(kind: str, tmp_path: Path) -> None:
    number = GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[number]
    stored = np.random.default_rng(1).integers(0, 256, (4, 3 * block_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("weight", stored, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "m.gguf")
    assert header.tensors["weight"].shape == (4, 3 * block)
    found = read_tensor(header, header.tensors["weight"])
    expected = dequantize(torch.from_numpy(stored.reshape(-1)), int(number)).reshape(4, 3 * block)
    # Random bytes make scales that are no numbers as well, and some of 60,000.
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_a_file_cut_anywhere_is_a_clear_error(tmp_path: Path) -> None:
    whole = written(tmp_path / "m.gguf", weight=np.zeros((64, 64), dtype=np.float32)).read_bytes()
    for size in (0, 3, 4, 10, 30, 60, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut off|no GGUF|empty"):
            read_header(tmp_path / "cut.gguf")


def test_any_bytes_are_read_or_refused_and_cost_no_memory(tmp_path: Path) -> None:
    whole = bytearray(written(tmp_path / "m.gguf", weight=np.zeros((8, 8), dtype=np.float32)).read_bytes())
    chance = random.Random(1)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(4, 300)
            damaged[at : at + 8] = chance.choice([b"\xff" * 8, struct.pack("<Q", 2**62), chance.randbytes(8), bytes(8)])
        (tmp_path / "damaged.gguf").write_bytes(damaged)
        try:
            header = read_header(tmp_path / "damaged.gguf")
        except ValueError:
            continue
        assert sum(tensor.nbytes for tensor in header.tensors.values()) <= len(damaged) * max(1, len(header.tensors))
