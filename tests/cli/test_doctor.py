"""`mm-gateway doctor` over configurations and machines that are sound, and over such as are not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mm_gateway.api.app import create_app
from mm_gateway.catalog import Catalog
from mm_gateway.cli.doctor import machine, setup
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.settings import Settings
from mm_gateway.hub import reaching
from mm_gateway.main import cli
from mm_gateway.runtime import machine as models_machine
from mm_gateway.runtime.machine import CpuKernels, Gpu
from mm_gateway.storage.key_store import KEYS_FILE, KeyStore
from tests.support.served import served

MOCK = {"model_name": "mock", "backend": "mock"}
Doctor = Callable[..., dict[str, dict[str, str]]]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doctor]:
    """Writes both files, and gives the findings by what was looked at."""
    monkeypatch.setattr(reaching, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")

    def examine(models: Any = None, *, fails: bool = False, **server: Any) -> dict[str, dict[str, str]]:
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models or {"mock": MOCK}}))
        sections = {"server": {"port": closed_port(), **server}, "storage": {"folder": str(tmp_path / "data")}}
        (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(sections))
        files = ["--models", str(tmp_path / "models.yaml"), "--config", str(tmp_path / "gateway.yaml")]
        outcome = CliRunner().invoke(cli, ["doctor", "--json", *files])
        assert outcome.exit_code == fails, outcome.output
        found = json.loads(outcome.output)
        assert all(finding["advice"] for finding in found if finding["status"] != "ok")
        return {finding["check"]: finding for finding in found}

    yield examine


def test_a_sound_machine(doctor: Doctor) -> None:
    found = doctor()
    checks = ["configuration", "models", "access", "port", "python", "packages", "cpu", "memory", "gpu", "cache", "data", "hub"]
    assert [*found] == checks
    assert {check for check, finding in found.items() if finding["status"] == "fail"} == set()
    assert "no entry needs it" in found["hub"]["found"] and found["hub"]["status"] == "ok"


def test_as_lines(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor({"far": {"model_name": "x", "backend": "remote", "base_url": "http://127.0.0.1/v1", "api_key_env": "NO_SUCH_KEY"}})
    files = ["--models", str(tmp_path / "models.yaml"), "--config", str(tmp_path / "gateway.yaml")]
    lines = CliRunner().invoke(cli, ["doctor", *files]).output
    assert all(f"{finding['status']:4}  {check}" in lines for check, finding in found.items())
    assert "→ Set NO_SUCH_KEY\n" in lines


def test_a_broken_configuration_is_told_and_the_machine_is_looked_at_all_the_same(doctor: Doctor) -> None:
    found = doctor({"m": {"model_name": "m", "backend": "nothing"}}, fails=True)
    assert found["configuration"]["status"] == "fail" and "backend: got 'nothing'" in found["configuration"]["found"]
    assert found["packages"]["status"] == "ok"


def test_what_entries_need(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    found = doctor(
        {
            "far": {"model_name": "x", "backend": "remote", "base_url": "http://127.0.0.1/v1", "api_key_env": "NO_SUCH_KEY"},
            "here": {"model_name": "x", "path": "missing"},
            "hub": {"model_name": "org/name"},
            "big": {"model_name": "org/big", "speculative_model": {"model_name": "y", "path": "no-draft"}},
        }
    )
    assert "no-draft does not exist" in found["model big: speculative_model"]["found"]
    assert "NO_SUCH_KEY, which is not set" in found["model far"]["found"] and found["model far"]["status"] == "warn"
    assert "missing does not exist" in found["model here"]["found"]
    assert found["hub"]["status"] == "warn" and "hub may need it" in found["hub"]["found"]


def test_a_draft_with_other_tokens(doctor: Doctor, gpt2_checkpoint: Path, qwen2_checkpoint: Path) -> None:
    draft = {"model_name": "small", "path": str(qwen2_checkpoint)}
    found = doctor({"big": {"model_name": "big", "path": str(gpt2_checkpoint), "speculative_model": draft}})
    finding = found["model big: speculative_model"]
    assert finding["status"] == "warn" and "small has other tokens, so it cannot guess what big says" in finding["found"]


def test_a_port_that_is_taken_and_one_where_a_gateway_runs(doctor: Doctor) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert "cannot be listened on" in doctor(port=listener.getsockname()[1], fails=True)["port"]["found"]
    with served(create_app(Settings(), Catalog({}))) as port:
        found = doctor(port=port)["port"]
        assert (found["status"], "a gateway runs there already" in found["found"]) == ("warn", True)


def test_an_open_address_without_keys(doctor: Doctor, tmp_path: Path) -> None:
    assert doctor(host="0.0.0.0")["access"]["status"] == "warn"
    assert doctor(host="0.0.0.0", api_keys=["key"])["access"]["status"] == "ok"
    store = KeyStore(tmp_path / "data" / KEYS_FILE)
    store.add(ApiKey(digest=b"d", name="made"))
    store.close()
    assert doctor(host="0.0.0.0")["access"]["status"] == "ok"


@pytest.mark.parametrize(
    ("kernels", "status", "says"),
    [
        (CpuKernels("avx2", None), "ok", "avx2 kernels"),
        (CpuKernels("portable", "g++"), "warn", "portable kernels"),
        (CpuKernels(None, "g++"), "ok", "compiled with g++ when the first model loads"),
        (CpuKernels(None, None), "warn", "no C++ compiler"),
        (CpuKernels(None, "g++", turned_off=True), "warn", "turns the kernels off"),
    ],
)
def test_kernels(monkeypatch: pytest.MonkeyPatch, kernels: CpuKernels, status: str, says: str) -> None:
    monkeypatch.setattr(models_machine, "cpu_kernels", lambda: kernels)
    found = machine.processor()
    assert found.status == status and says in found.found


def test_kernels_that_the_processor_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> CpuKernels:
        raise ValueError("MM_CPU_KERNELS=none_such: this processor has no such kernels")

    monkeypatch.setattr(models_machine, "cpu_kernels", unknown)
    assert machine.processor().status == "fail"


def test_gpus(monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    monkeypatch.setattr(models_machine, "gpus", lambda: [Gpu("cuda:0", "H200", 2**37, 2**36)])
    assert "cuda:0: H200, 68.7 GB of 137.4 GB are free" in doctor()["gpu"]["found"]
    monkeypatch.setattr(models_machine, "gpus", list)
    monkeypatch.setattr(models_machine, "gpu_without_torch", lambda: True)
    assert doctor()["gpu"]["status"] == "warn"
    monkeypatch.setattr(models_machine, "gpu_without_torch", lambda: False)
    assert "m are to run on one" in doctor({"m": {"model_name": "m", "path": ".", "device": "cuda"}}, fails=True)["gpu"]["found"]


def test_a_package_that_is_missing_or_old(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    version = setup._version
    monkeypatch.setattr(setup, "_version", lambda name: {"litestar": None, "uvicorn": "0.1"}.get(name, version(name)))
    finding = doctor(fails=True)["packages"]  # the last of both
    assert finding["status"] == "fail" and finding["advice"].startswith('pip install "uvicorn')


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = machine._disk("data", tmp_path / "file" / "data", 1, "things are kept in", "storage.folder")
    assert (found.status, found.advice) == ("fail", "Let this user write there, or set storage.folder")
    assert machine._disk("data", tmp_path / "new", 2**60, "things are kept in", "storage.folder").status == "warn"


def test_a_check_that_fails_itself_is_told_and_the_others_go_on(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> Any:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(machine, "memory", broken)
    found = doctor(fails=True)
    assert found["memory"]["found"] == "could not be looked at: RuntimeError: no /proc here"
    assert found["hub"]["status"] == "ok"


def test_a_database_that_is_there_and_one_that_is_not(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    models = {"m": {"model_name": "m", "backend": "mock"}}
    monkeypatch.setenv("MM_GATEWAY_STORAGE_URL", database_url)
    assert doctor(models)["database"]["status"] == "ok"
    monkeypatch.setenv("MM_GATEWAY_STORAGE_URL", "postgresql://u:secret-word@127.0.0.1:1/d")
    found = doctor(models, fails=True)
    assert found["database"]["status"] == "fail" and "127.0.0.1:1/d cannot be used" in found["database"]["found"]
    assert "refused" in found["database"]["found"] and "secret-word" not in str(found)
    assert found["access"]["status"] == "fail"
    for wrong in ("postgresql://u:pass@hushed@h/d", "postgresql://u:hushed@h/d?sslmod=require"):
        monkeypatch.setenv("MM_GATEWAY_STORAGE_URL", wrong)
        found = doctor(models, fails=True)
        assert "is no address of a database" in found["database"]["found"] and "hushed" not in str(found)
