"""Downloads, against a hub on loopback, with the library's own client and cache."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import DownloadError, ModelLoadError
from mm_gateway.hub.download import download
from mm_gateway.runtime.checkpoints.files import checkpoint_folder, weight_files
from tests.support.fake_hub import FakeHub, fake_hub, point_library_at

WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"pickle", "README.md": b"read me"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def everything(there: Sequence[str]) -> Sequence[str]:
    return there


def folder_of(name: str, **config: str) -> Path:
    return checkpoint_folder(ModelConfig(model_name=name, **config), lambda _: None)  # type: ignore[arg-type]


def test_what_a_load_reads_is_fetched_and_nothing_else(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.add("o/m", FILES)
    folder = folder_of("o/m")
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_complete_copy_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", FILES)
    folder = folder_of("o/m")
    point_library_at(monkeypatch, "http://127.0.0.1:9")
    assert folder_of("o/m") == folder


def test_a_copy_outlives_its_repository(hub: FakeHub) -> None:
    hub.add("o/m", FILES)
    folder = folder_of("o/m")
    del hub.repositories["o/m"]
    assert folder_of("o/m") == folder


def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", FILES)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.break_after = [100_000]
    assert (folder_of("o/m") / "model.safetensors").read_bytes() == WEIGHTS
    assert [range_ for _, range_ in hub.downloads()] == [None, "bytes=100000-"]


def stopped(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A download that ends after so many bytes of a large file, for good."""
    hub.add("o/m", FILES)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.break_after = [after] + [0] * 10
    with pytest.raises(DownloadError, match="broke off"):
        folder_of("o/m")
    hub.break_after = []
    hub.requests.clear()


def test_a_download_that_was_stopped_goes_on_at_its_byte(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped(hub, monkeypatch, 100_000)
    assert (folder_of("o/m") / "model.safetensors").read_bytes() == WEIGHTS
    assert [range_ for _, range_ in hub.downloads()] == ["bytes=100000-"]
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_what_was_there_and_is_damaged_is_fetched_anew(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped(hub, monkeypatch, 100_000)
    (unfinished,) = (tmp_path / "cache").rglob("*.incomplete")
    unfinished.write_bytes(bytes([1]) * 100_000)
    assert (folder_of("o/m") / "model.safetensors").read_bytes() == WEIGHTS
    assert [range_ for _, range_ in hub.downloads()] == ["bytes=100000-", None]


def test_two_at_once_do_not_write_into_one_file(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped(hub, monkeypatch, 100_000)
    (unfinished,) = (tmp_path / "cache").rglob("*.incomplete")
    with unfinished.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert (folder_of("o/m") / "model.safetensors").read_bytes() == WEIGHTS
    assert unfinished.stat().st_size == 100_000
    assert [range_ for _, range_ in hub.downloads()] == [None]


def test_files_that_are_there_are_not_fetched_again(hub: FakeHub) -> None:
    hub.add("o/m", FILES)
    download("o/m", lambda there: [file for file in there if file != "config.json"])
    assert len(hub.downloads()) == 2
    download("o/m", everything)
    assert len(hub.downloads()) == 2


def test_a_disk_without_room_is_noticed_before_the_first_byte(hub: FakeHub) -> None:
    hub.add("o/m", FILES, sizes={"model.safetensors": 10**18})
    with pytest.raises(DownloadError, match=r"^o/m needs 1000000000\.0 GB on the disk, and .*cache has .* GB free.*HF_HOME") as caught:
        folder_of("o/m")
    assert caught.value.retryable
    assert not hub.downloads()
    assert not hub.downloads("config.json")


def test_files_that_are_there_need_no_room(hub: FakeHub) -> None:
    repository = hub.add("o/m", FILES)
    folder = folder_of("o/m")
    repository.sizes["model.safetensors"] = 10**18
    assert folder_of("o/m") == folder


def test_a_gated_repository_asks_for_a_token_and_takes_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", FILES, gated=True)
    with pytest.raises(DownloadError, match=r"gated.*HF_TOKEN"):
        folder_of("o/m")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert (folder_of("o/m") / "config.json").is_file()


def test_offline_the_variable_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"hub cannot be reached, because HF_HUB_OFFLINE is set\. Unset it") as caught:
        folder_of("o/m")
    assert not caught.value.retryable
    assert not hub.requests


def test_a_hub_that_goes_in_the_middle_is_an_error_that_can_be_tried_again(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", FILES)
    hub.break_after = [1000] * 10
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"^o/m: the hub cannot be reached, or broke off\. Try again") as caught:
        folder_of("o/m")
    assert caught.value.retryable


def test_a_repository_without_a_checkpoint_is_said_to_be_none(hub: FakeHub) -> None:
    hub.add("o/m", {"README.md": b"read me"})
    with pytest.raises(Exception, match=r"^o/m: its repository holds no config\.json, so it is no checkpoint"):
        folder_of("o/m")


def test_a_repository_of_gguf_files_wants_one_to_be_named(hub: FakeHub) -> None:
    hub.add("o/g", {"config.json": b"{}", "m-Q4_0.gguf": b"4", "m-Q8_0.gguf": b"8"})
    with pytest.raises(ModelLoadError, match=r"^o/g has its weights in GGUF files; set gguf_file to one of m-Q4_0\.gguf, m-Q8_0\.gguf$"):
        folder_of("o/g")
    with pytest.raises(ModelLoadError, match=r"^o/g: its repository has no file \.\./x\.gguf; set gguf_file to one of m-Q4_0"):
        folder_of("o/g", gguf_file="../x.gguf")
    assert not hub.downloads()


def test_with_a_revision_a_folder_of_that_name_is_not_taken(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add("o/m", FILES)
    (tmp_path / "o" / "m").mkdir(parents=True)
    (tmp_path / "o" / "m" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert folder_of("o/m") == Path("o/m")
    assert folder_of("o/m", revision="main") != Path("o/m")


@pytest.mark.parametrize(
    ("there", "read"),
    [
        (["a.safetensors", "b.safetensors", "a.bin"], ["a.safetensors", "b.safetensors"]),
        (["pytorch_model.bin", "onnx/model.safetensors"], ["pytorch_model.bin"]),
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "model-00001-of-00002.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["model.gguf"], []),
    ],
)
def test_weights_are_of_one_format_and_stand_beside_the_configuration(there: list[str], read: list[str]) -> None:
    assert weight_files(there) == read
