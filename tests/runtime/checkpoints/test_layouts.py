"""Folders as people publish and copy them: other files beside the weights, missing and damaged ones, copies of tied embeddings. Each gives
what transformers gives, or an error that says what is wrong."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.files import weight_files
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader
from tests.support import checkpoints
from tests.support.gguf_checkpoint import write_gguf

IDS = torch.arange(3, 40)[None]
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 269060552\n"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(llama_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def tied_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)


@pytest.fixture
def tied(tied_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tied_checkpoint, tmp_path / "checkpoint"))


def change(folder: Path, weights: Callable[[Tensors], Tensors] = dict, **said: Any) -> None:
    """Of a checkpoint: its weights, and what config.json says; None: nothing."""
    stored = weights(load_file(folder / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | said
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def cut_into_parts(folder: Path) -> list[Path]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return sorted(folder.glob("model-*.safetensors"))


def load(path: Path) -> LoadedModel:
    """As the manager does: what it needs is foreseen first, within 5 percent."""
    config = ModelConfig(model_name="m", path=str(path), device="cpu")
    _, need = ModelLoader().prepare(config, EngineSettings(), lambda device: None)
    loaded = ModelLoader().load(config)
    assert need.weight_bytes == pytest.approx(loaded.weight_bytes, rel=0.05)
    return loaded


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


def assert_as_in_transformers(path: Path) -> LoadedModel:
    expected, loaded = logits(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)), load(path)
    assert (logits(loaded.model) - expected).abs().max() < 1e-4 * expected.std()
    return loaded


def test_parts_are_those_that_the_index_names(folder: Path) -> None:
    old = load_file(folder / "model.safetensors")
    cut_into_parts(folder)
    save_file({name: tensor * 3 for name, tensor in old.items()}, folder / "old.safetensors", metadata={"format": "pt"})
    assert_as_in_transformers(folder)


def test_a_part_that_is_missing_is_named_before_anything_is_read(folder: Path) -> None:
    parts = cut_into_parts(folder)
    parts[1].unlink()
    config = ModelConfig(model_name="m", path=str(folder), device="cpu")
    for step in (lambda: ModelLoader().prepare(config, EngineSettings(), lambda device: None), lambda: ModelLoader().load(config)):
        with pytest.raises(ModelLoadError, match=rf"1 of {len(parts)} weight files are missing \({parts[1].name}\)"):
            step()


@pytest.mark.parametrize("index", ['{"weight_map": ', "[]", '{"weight_map": {"lm_head.weight": "../other.safetensors"}}'])
def test_a_damaged_index_is_said(folder: Path, index: str) -> None:
    cut_into_parts(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors\.index\.json is cut off or damaged"):
        load(folder)


def test_variants_and_adapters_beside_the_weights_are_left_alone(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in ("adapter_model", "model.fp16", "zz"):
        save_file({key: tensor.half() + 1 for key, tensor in weights.items()}, folder / f"{name}.safetensors", metadata={"format": "pt"})
    assert_as_in_transformers(folder)
    assert weight_files(sorted(path.name for path in folder.iterdir())) == ["model.safetensors"]


@pytest.mark.parametrize(
    "stored",
    [
        lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()},
        lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] * 2},
        lambda t: {("lm_head.weight" if "embed" in name else name): tensor for name, tensor in t.items()},
    ],
    ids=["stored twice", "two that differ", "stored as the output layer"],
)
def test_tied_embeddings_however_they_are_stored(tied: Path, stored: Callable[[Tensors], Tensors]) -> None:
    change(tied, stored)
    assert_as_in_transformers(tied)


def test_the_type_of_the_files_counts_where_config_json_names_none(folder: Path) -> None:
    change(folder, lambda t: {name: tensor if tensor.ndim == 1 else tensor.bfloat16() for name, tensor in t.items()}, dtype=None)
    loaded = load(folder)
    change(folder, dtype="bfloat16")
    assert loaded.weight_bytes == load(folder).weight_bytes
    assert loaded.config.dtype == "auto"


def test_tensors_without_a_place_are_named_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    computed = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}
    change(folder, lambda t: t | computed)
    assert_as_in_transformers(folder)
    assert not caplog.records
    change(folder, lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)})
    assert_as_in_transformers(folder)
    assert "1 tensors of its files have no place in the model: model.layers.0.self_attn.q_proj.bias" in caplog.text


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Path}, protocol=2))


def _cut(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:100_000])


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    r"model\.safetensors is a pointer in place of the file, which Git LFS": lambda folder: (folder / "model.safetensors").write_text(
        POINTER
    ),
    r"tokenizer\.json is a pointer in place of the file, which Git LFS": lambda folder: (folder / "tokenizer.json").write_text(POINTER),
    r"\.weight is stored as \[476, 64\], but config\.json asks for \[512, 64\]": lambda folder: change(folder, vocab_size=512),
    "a pickle with more in it than tensors": _pickled,
    "a weight file is cut off or damaged": _cut,
}


@pytest.mark.parametrize("says", DAMAGES)
def test_damage_is_said(folder: Path, says: str) -> None:
    DAMAGES[says](folder)
    with pytest.raises(ModelLoadError, match=says):
        load(folder)


def gguf_in(folder: Path, name: str, **more: Any) -> Path:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return write_gguf(folder / "made.gguf", model, tokenizer, **more).rename(folder / name)


def test_a_gguf_file_is_found_in_capitals_beside_a_config_json_and_beside_what_reads_images(folder: Path) -> None:
    expected = logits(AutoModelForCausalLM.from_pretrained(folder))
    file = gguf_in(folder, "Model-F32.GGUF")
    (folder / "model.safetensors").unlink()
    (folder / "mmproj-model-f16.gguf").write_bytes(file.read_bytes())
    for path in (file, folder):
        torch.testing.assert_close(logits(load(path).model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["blk.0.attn_q_norm.weight", "blk.0.attn_output.bias", "blk.1.ffn_up.scale"])
def test_a_tensor_of_a_gguf_file_that_has_no_place_is_an_error(folder: Path, name: str) -> None:
    file = gguf_in(folder, "m.gguf", tensors={name: np.ones(64, dtype=np.float32)})
    with pytest.raises(ModelLoadError, match=r"no place for.*(q_norm|o_proj\.bias|up_proj\.scale)"):
        load(file)


def test_a_gguf_file_of_the_other_byte_order_or_that_was_not_brought_is_said(folder: Path) -> None:
    writer = gguf.GGUFWriter(str(folder / "big.gguf"), "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"big\.gguf is written for big-endian machines"):
        load(folder / "big.gguf")
    (folder / "pointer.gguf").write_text(POINTER)
    with pytest.raises(ModelLoadError, match=r"pointer\.gguf is a pointer in place of the file"):
        load(folder / "pointer.gguf")


def test_a_snapshot_of_the_hubs_cache_is_a_folder_like_any_other(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "main"
    files = [path for path in folder.iterdir() if path.is_file()]
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(files):
        file.rename(blobs / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    assert_as_in_transformers(snapshot)
