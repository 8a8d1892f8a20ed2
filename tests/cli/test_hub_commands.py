"""pull, list, rm, search and ps, against a hub on loopback and a gateway that serves from it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from transformers import GPT2LMHeadModel

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.loader import load_settings
from mm_gateway.main import cli, run
from tests.support.fake_hub import FakeHub, fake_hub, point_library_at
from tests.support.gguf_checkpoint import gguf_of, gguf_parts_of
from tests.support.served import served

ROOT = Path(__file__).parents[2]
FILES = {"config.json": b"{}", "model.safetensors": bytes(256_000)}
GGUF = {
    "README.md": b"",
    "config.json": b"{}",
    "m-Q4_K_M.gguf": b"4" * 1000,
    "m-Q8_0.gguf": b"8" * 2000,
    "big/m-F16-00001-of-00002.gguf": b"16" * 1000,
    "big/m-F16-00002-of-00002.gguf": b"61" * 1000,
}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "made"))
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process: its exit code, stdout and stderr. models.yaml has the entry `small` for o/m, `far` is remote."""
    models = tmp_path / "models.yaml"
    models.write_text(
        "models: {small: {model_name: o/m, aliases: [little]}, far: {backend: remote, model_name: x, base_url: 'http://127.0.0.1:9'}}"
    )
    monkeypatch.setenv("MM_GATEWAY_MODELS", str(models))
    monkeypatch.setenv("MM_GATEWAY_SERVER_PORT", "9")

    def command(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            run(cli, list(arguments))
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


def pulled(tmp_path: Path) -> set[str]:
    """Files in the cache, with their folders."""
    paths = (tmp_path / "cache").glob("models--*/snapshots/*/**/*")
    return {"/".join(path.parts[path.parts.index("snapshots") + 2 :]) for path in paths if path.is_file()}


def test_pull_brings_a_model_and_says_where_it_is(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.add("o/n", FILES)
    code, out, err = command("pull", "o/n")
    assert (code, err) == (0, "")
    assert f"o/n is complete: 2 files, 256 kB, in {tmp_path}/cache/models--o--n/snapshots/" in out
    assert "add an entry with model_name: o/n" in out
    assert pulled(tmp_path) == set(FILES)


def test_pull_takes_a_name_or_alias_of_models_yaml(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.add("o/m", FILES)
    code, out, _ = command("pull", "little")
    assert code == 0 and "add an entry" not in out
    assert pulled(tmp_path) == set(FILES)


@pytest.mark.parametrize("file", ["m-Q4_K_M.gguf", "q4_k_m"])
def test_pull_of_one_file_brings_it_and_what_describes_the_model(hub: FakeHub, command: Command, tmp_path: Path, file: str) -> None:
    hub.add("o/g", GGUF)
    assert command("pull", f"o/g:{file}")[0] == 0
    assert pulled(tmp_path) == {"config.json", "m-Q4_K_M.gguf"}


@pytest.mark.parametrize("named", ["F16", "big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"])
def test_pull_of_a_file_in_parts_brings_all_of_them(hub: FakeHub, command: Command, tmp_path: Path, named: str) -> None:
    hub.add("o/g", GGUF)
    assert command("pull", f"o/g:{named}")[0] == 0
    assert pulled(tmp_path) == {"config.json", "big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"}


def test_pull_of_a_file_of_which_the_hub_lacks_a_part_names_it(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.add("o/g", {name: content for name, content in GGUF.items() if name != "big/m-F16-00002-of-00002.gguf"})
    code, _, err = command("pull", "o/g:F16")
    assert code == 1 and "o/g has no file big/m-F16-00002-of-00002.gguf, which is a part of big/m-F16-00001-of-00002.gguf" in err
    assert not pulled(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("o/g", "o/g has its weights in GGUF files. Pull one of them: o/g:m-Q4_K_M.gguf, o/g:m-Q8_0.gguf, o/g:big/"),
        ("o/g:Q5", "no file of the name or quantization 'Q5'. Pull one of: o/g:m-Q4_K_M.gguf"),
        ("o/g:../../secret", "no file of the name"),
        ("o/none", "not on the hub"),
        ("o/g:", "neither an entry of models.yaml nor the name of a hub repository"),
        ("../etc", "neither an entry of models.yaml nor the name of a hub repository"),
        ("far", "does not come from the hub (backend: remote)"),
    ],
)
def test_what_cannot_be_pulled_is_said_in_one_line(hub: FakeHub, command: Command, tmp_path: Path, name: str, says: str) -> None:
    hub.add("o/g", GGUF)
    code, out, err = command("pull", name)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and says in err and err.count("\n") == 1
    assert not pulled(tmp_path)


def test_a_pull_that_was_cut_off_goes_on_with_the_files_that_are_missing(
    hub: FakeHub, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {f"model-{number}.safetensors": b"%d" % number * 1000 for number in (1, 2)}
    hub.add("o/n", {path: content for path, content in FILES.items() if path != "model.safetensors"} | parts)
    hub.break_after = [0] * 6
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("mm_gateway.hub.download.WORKERS", 1)
    code, _, err = command("pull", "o/n")
    assert code == 1 and "broke off. Try again" in err
    broken = hub.downloads()[0][0]
    assert {path for path, _ in hub.downloads()} > {broken}
    before = len(hub.downloads())
    assert command("pull", "o/n")[0] == 0
    assert [path for path, _ in hub.downloads()[before:]] == [broken]


def test_a_terminal_gets_a_bar(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("o/n", FILES)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    arguments = [sys.executable, "-m", "mm_gateway.main", "pull", "o/n"]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=environment, text=True, timeout=60)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # so ends what nobody writes to any more
        while piece := os.read(ours, 4096):
            shown += piece.decode()
    os.close(ours)
    assert done.returncode == 0 and "o/n is complete" in done.stdout
    assert "downloading: 100% |" in shown and "256kB of 256kB" in shown
    assert "Reconstruct" not in shown and "Fetching" not in shown


def test_list_shows_what_is_downloaded_and_who_uses_it(hub: FakeHub, command: Command) -> None:
    assert "Nothing is downloaded yet" in command("list")[1]
    hub.add("o/m", FILES)
    hub.add("o/n", FILES)
    command("pull", "o/m")
    command("pull", "o/n")
    header, first, second = command("list")[1].splitlines()
    assert header.split() == ["NAME", "SIZE", "DOWNLOADED", "USED", "BY"]
    assert first.split() == ["o/m", "256", "kB", "just", "now", "small"]
    assert second.split() == ["o/n", "256", "kB", "just", "now", "-"]


def test_rm_deletes_a_model_and_names_who_will_fetch_it_again(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.add("o/m", FILES)
    command("pull", "o/m")
    code, out, _ = command("rm", "small")
    assert code == 0
    assert out.splitlines() == [
        "small is deleted, 256 kB are free",
        "small of models.yaml will download it again when it is asked for",
    ]
    assert not pulled(tmp_path)


def test_rm_deletes_one_file(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.add("o/g", GGUF)
    command("pull", "o/g:Q8_0")
    command("pull", "o/g:F16")
    assert command("rm", "o/g:big/m-F16-00001-of-00002.gguf")[0] == 0
    assert pulled(tmp_path) == {"config.json", "m-Q8_0.gguf"}
    code, _, err = command("rm", "o/g:m-Q4_K_M.gguf")
    assert code == 1 and "has no file m-Q4_K_M.gguf in the cache. There are config.json, m-Q8_0.gguf" in err


def test_rm_of_what_is_not_there_is_an_error(hub: FakeHub, command: Command) -> None:
    code, _, err = command("rm", "o/n")
    assert code == 1 and "o/n is not in the cache" in err and "mm-gateway list" in err


def test_search_shows_the_most_downloaded_first(hub: FakeHub, command: Command) -> None:
    text = {"pipeline_tag": "text-generation"}
    hub.add("o/qwen-a", FILES, info=text | {"downloads": 1200, "tags": ["gguf"], "gguf": {"total": 596_000_000}})
    hub.add("o/qwen-b", FILES, info=text | {"downloads": 34_000_000, "tags": ["safetensors", "8-bit"]}, gated=True)
    hub.add("o/qwen-images", FILES, info={"downloads": 5})
    hub.add("o/other", FILES, info=text)
    command("pull", "o/qwen-a")
    header, *rows = command("search", "qwen")[1].splitlines()
    assert header.split() == ["NAME", "PARAMETERS", "FORMATS", "DOWNLOADS"]
    assert [row.split() for row in rows] == [
        ["o/qwen-b", "-", "safetensors,", "8-bit", "34.0M", "gated"],
        ["o/qwen-a", "596M", "gguf", "1.2k", "downloaded"],
    ]
    assert len(command("search", "qwen", "--all")[1].splitlines()) == 4
    assert len(command("search", "qwen", "--limit", "1")[1].splitlines()) == 2
    assert "no model with 'nothing'" in command("search", "nothing")[1]


def test_search_without_the_hub_says_so(hub: FakeHub, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    point_library_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    code, _, err = command("search", "qwen")
    assert code == 1 and "error: searching 'qwen': the hub cannot be reached" in err


def test_ps_and_rm_know_what_a_running_gateway_has_in_memory(
    hub: FakeHub, command: Command, gpt2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/m", gpt2_checkpoint)
    settings = load_settings(None, None, {**os.environ, "MM_GATEWAY_SERVER_REQUEST_LOG": "off"})
    with served(create_app(settings, build_catalog(settings))) as port:
        address = f"http://127.0.0.1:{port}"
        assert "No model is in memory" in command("ps", "--url", address)[1]
        body = {"model": "small", "prompt": "Hello", "max_tokens": 1}
        assert httpx.post(f"{address}/v1/completions", json=body, timeout=60).status_code == 200
        header, row = command("ps", "--url", f"{address}/v1")[1].splitlines()
        assert header.split() == ["NAME", "STATE", "MEMORY", "DEVICE", "REQUESTS", "LAST", "USED"]
        assert row.split()[:2] == ["small", "ready"] and " cpu " in row and "0 running" in row
        monkeypatch.setenv("MM_GATEWAY_URL", address)
        assert re.search(r"^  running +ready, \d+ [kM]B, cpu$", command("show", "small")[1], re.MULTILINE)
        code, _, err = command("rm", "o/m")
        assert code == 1 and "o/m is in the memory of the running gateway, as small. Unload it first" in err
    code, _, err = command("rm", "o/m")
    assert code == 1 and f"No gateway answers at {address}" in err
    monkeypatch.delenv("MM_GATEWAY_URL")
    assert command("rm", "o/m")[0] == 0


def test_ps_says_that_a_key_is_missing(command: Command) -> None:
    settings = load_settings(None, None, {**os.environ, "MM_GATEWAY_API_KEYS": "right"})
    with served(create_app(settings, build_catalog(settings))) as port:
        code, _, err = command("ps", "--url", f"http://127.0.0.1:{port}")
        assert code == 1 and "asks for a key. Set MM_GATEWAY_KEY" in err
        assert command("ps", "--url", f"http://127.0.0.1:{port}", "--key", "right")[0] == 0


def test_ps_without_a_gateway_says_how_to_start_one(command: Command) -> None:
    code, _, err = command("ps")
    assert code == 1 and "No gateway answers at http://127.0.0.1:9" in err and "mm-gateway serve" in err


def test_show_says_what_a_model_is(hub: FakeHub, command: Command, gpt2_checkpoint: Path) -> None:
    hub.add("o/m", gpt2_checkpoint)
    command("pull", "o/m")
    code, out, err = command("show", "small")
    assert (code, err) == (0, "")
    facts = {line[:16].strip(): line[16:].strip() for line in out.splitlines()[1:]}
    parameters = GPT2LMHeadModel.from_pretrained(gpt2_checkpoint).num_parameters()
    assert facts["architecture"] == "GPT2LMHeadModel"
    assert facts["parameters"] == f"{parameters / 1000:.0f}k"
    assert facts["context"] == "256 tokens"
    assert facts["weights"].startswith("float32, ") and facts["weights"].endswith("in 1 file")
    assert " of weights and up to " in facts["memory"] and "of KV cache on cpu" in facts["memory"]
    assert facts["chat template"] == "gpt2 (built in)" and facts["tools"] == "plain"
    assert "running" not in facts


def test_show_of_what_is_not_downloaded_fetches_no_weights(hub: FakeHub, command: Command, qwen2_checkpoint: Path) -> None:
    hub.add("o/q", qwen2_checkpoint)
    code, out, _ = command("show", "o/q")
    assert code == 0
    assert "float32, not downloaded" in out and "the checkpoint's own" in out and "hermes" in out
    assert "memory" not in out
    assert not hub.downloads()


def test_show_of_a_gguf_file(hub: FakeHub, command: Command, qwen2_checkpoint: Path, tmp_path: Path) -> None:
    hub.add("o/g", {"m-F32.gguf": gguf_of(qwen2_checkpoint, tmp_path)})
    assert (
        "not downloaded, and a GGUF file says what it is only as a whole: mm-gateway pull o/g:m-F32.gguf"
        in command("show", "o/g:m-F32.gguf")[2]
    )
    command("pull", "o/g:f32")
    code, out, _ = command("show", "o/g:m-F32.gguf")
    assert code == 0
    assert "Qwen2ForCausalLM" in out and "GGUF, F32, " in out and " of weights and " in out


def test_show_of_a_gguf_file_in_parts(hub: FakeHub, command: Command, qwen2_checkpoint: Path, tmp_path: Path) -> None:
    hub.add("o/g", gguf_parts_of(qwen2_checkpoint, tmp_path, "m-F32"))
    command("pull", "o/g:F32")
    code, out, err = command("show", "o/g:m-F32-00001-of-00003.gguf")
    assert code == 0, err
    assert " in 3 files" in out


def test_show_of_a_folder_and_of_what_is_no_model(hub: FakeHub, command: Command, llama_checkpoint: Path) -> None:
    assert "LlamaForCausalLM" in command("show", str(llama_checkpoint))[1]
    assert "backend: remote. `mm-gateway models far` shows" in command("show", "far")[2]
    assert "neither an entry of models.yaml nor" in command("show", "a/b/c")[2]
