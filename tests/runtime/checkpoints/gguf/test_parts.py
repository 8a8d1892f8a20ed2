"""A model whose GGUF file was cut into parts is read as the whole file is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import read_checkpoint_config
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.gguf.header import read_header, weights_header
from mm_gateway.runtime.checkpoints.memory_estimate import weight_bytes
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader
from tests.support.checkpoints import make_tokenizer
from tests.support.gguf_checkpoint import write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def files(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model as one file in `whole`, and in three parts in `parts`."""
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **shape, num_key_value_heads=2, initializer_range=0.1)
    model = AutoModelForCausalLM.from_config(config).eval()
    folder = tmp_path_factory.mktemp("gguf")
    for name, tensors_in_part in (("whole", 0), ("parts", 8)):
        (folder / name).mkdir()
        write_gguf(folder / name / "m.gguf", model, tokenizer, GGMLQuantizationType.Q8_0, tensors_in_part=tensors_in_part)
    assert sorted(path.name for path in (folder / "parts").iterdir()) == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    return folder


@pytest.fixture
def parts(files: Path, tmp_path: Path) -> Path:
    """A copy of the folder of parts."""
    return shutil.copytree(files / "parts", tmp_path / "parts")


def load(path: Path) -> LoadedModel:
    return ModelLoader().load(ModelConfig(model_name="m", path=str(path), device="cpu"))


@pytest.mark.parametrize("named", ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf", ""])
def test_any_part_or_the_folder_stands_for_all(files: Path, named: str) -> None:
    whole, loaded = load(files / "whole" / "m.gguf"), load(files / "parts" / named)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, whole.model(ids).logits)
    assert loaded.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
    folders = [checkpoint_folder(each.config, lambda _: None) for each in (loaded, whole)]
    foreseen, of_whole = (weight_bytes(folder, whole.config, read_checkpoint_config(folder), device_type="cpu") for folder in folders)
    assert foreseen == of_whole
    assert foreseen == pytest.approx(loaded.weight_bytes, rel=0.05)


def test_parts_are_found_beside_a_link_as_in_the_hubs_cache(parts: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, part in enumerate(sorted(parts.iterdir())):
        part.rename(blobs / str(number))
        (snapshot / part.name).symlink_to(Path("..", "blobs", str(number)))
    assert load(snapshot / "m-00001-of-00003.gguf").weight_bytes > 0


def test_a_missing_part_is_named(parts: Path) -> None:
    (parts / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelLoadError, match=r"^m: m-00002-of-00003\.gguf is missing: all 3 parts have to lie side by side$"):
        load(parts / "m-00001-of-00003.gguf")
    (parts / "m-00001-of-00003.gguf").unlink()
    with pytest.raises(ModelLoadError, match=r"^m: m-00001-of-00003\.gguf, m-00002-of-00003\.gguf are missing"):
        load(parts / "m-00003-of-00003.gguf")


def test_a_part_that_comes_later_is_seen(parts: Path) -> None:
    last = parts / "m-00003-of-00003.gguf"
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(ModelLoadError, match=r"m-00003-of-00003\.gguf is missing"):
        load(parts)
    last.write_bytes(content)
    assert load(parts).weight_bytes > 0


def test_a_part_under_another_name_says_how_parts_are_named(parts: Path) -> None:
    renamed = (parts / "m-00001-of-00003.gguf").rename(parts / "model.gguf")
    with pytest.raises(ModelLoadError, match=r"^m: model\.gguf is one of 3 parts.* such as model-00001-of-00003\.gguf$"):
        load(renamed)


def test_parts_in_each_others_place_or_of_another_model_are_refused(parts: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    second = parts / "m-00002-of-00003.gguf"
    shutil.copy(parts / "m-00003-of-00003.gguf", second)
    with pytest.raises(ModelLoadError, match=r"m-00002-of-00003\.gguf is no part 2 of 3 by what it says itself"):
        load(parts)
    writer = gguf.GGUFWriter(str(second), "llama")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"m-00001-of-00003\.gguf and the other parts are not those of one model"):
        load(parts)


def test_a_whole_file_may_be_named_as_a_part(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "whole" / "m.gguf", tmp_path / "m-00002-of-00005.gguf")
    assert load(tmp_path / "m-00002-of-00005.gguf").weight_bytes > 0


def test_heads_are_read_again_when_a_part_changes(parts: Path) -> None:
    first, last = parts / "m-00001-of-00003.gguf", parts / "m-00003-of-00003.gguf"
    header = weights_header(first)
    assert weights_header(first) is header
    assert {tensor.file.name for tensor in header.tensors.values()} == {path.name for path in parts.iterdir()}
    last.write_bytes(last.read_bytes() + bytes(32))
    assert weights_header(first) is not header
    assert read_header(last).file == first
