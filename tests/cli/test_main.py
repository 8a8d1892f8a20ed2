"""The command line as a user types it: in a process of its own, over the shipped configuration and the mock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.loader import load_settings

ROOT = Path(__file__).parents[2]


def command(*arguments: str, stdin: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mm_gateway.main", *arguments], capture_output=True, text=True, input=stdin, cwd=folder, timeout=60
    )


def test_models_lists_every_entry_and_shows_one() -> None:
    assert all(name in command("models").stdout for name in ("gpt2-medium", "Qwen/Qwen-7B-Chat-Int4", "gptq"))
    shown = command("models", "qwen-7b-chat").stdout
    assert "trust_remote_code" in shown
    assert "8192" in shown
    assert "gpt2" not in shown


def test_models_lists_the_workflows_too() -> None:
    assert "mm-orch/lesson-pack" in command("models").stdout
    shown = command("models", "mm-orch/search-qa").stdout
    assert "max_results" in shown
    assert "lesson" not in shown


def test_the_guides_model_info() -> None:
    assert command("--model-info").stdout == command("models").stdout
    assert command("--model-info", "gpt2").stdout == command("models", "gpt2").stdout


def test_an_unknown_model_is_an_error_that_lists_the_known() -> None:
    done = command("models", "gpt5")
    assert done.returncode == 1
    assert "`gpt5` does not exist" in done.stderr
    assert "gpt2-medium" in done.stderr


def test_query_without_real_models_asks_the_mock() -> None:
    guide = command("--model", "gpt2", "你好，请介绍一下你自己")
    assert guide.returncode == 0
    assert len(guide.stdout.split()) == 24
    assert command("query", "--model", "mock", "你好，请介绍一下你自己").stdout == guide.stdout


def test_query_obeys_max_tokens_and_reports_errors() -> None:
    assert len(command("query", "--model", "mock", "--max-tokens", "3", "Hello").stdout.split()) == 3
    failed = command("query", "--model", "mock", "!mock error=503")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr


def test_chat_keeps_the_conversation_and_survives_errors() -> None:
    done = command("chat", "--model", "mock", "--max-tokens", "4", stdin="Hello\n!mock error=500\nAgain\n/reset\nHello\n/exit\n")
    assert done.returncode == 0
    first, again, afresh = filter(None, (line.strip("> ") for line in done.stdout.splitlines()))
    assert first == afresh
    assert first != again
    assert "told to fail" in done.stderr


def test_the_guides_chat_mode_ends_with_its_input() -> None:
    done = command("--mode", "chat", stdin="Hello\n")
    assert done.returncode == 0
    assert len(done.stdout.replace("> ", "").split()) == 24


def test_check_validates_and_names_the_mistake(tmp_path: Path) -> None:
    assert command("check").returncode == 0
    (tmp_path / "m.yaml").write_text("models: {m: {model_name: m, dtype: fp64}}")
    for verb in ("check", "serve"):
        done = command(verb, "--models", str(tmp_path / "m.yaml"))
        assert done.returncode == 2
        assert "m.yaml: model m: dtype: got 'fp64'" in done.stderr


def test_a_new_key_opens_where_its_line_is_in_the_file(tmp_path: Path) -> None:
    shown = command("keys", "new", "--name", "alice").stdout.splitlines()
    key, line = (text for text in shown if text.startswith(("mmg-", "sha256:")))
    (tmp_path / "models.yaml").write_text("models: {m: {model_name: m}}")
    (tmp_path / "gateway.yaml").write_text("server: {api_keys_file: keys}")
    (tmp_path / "keys").write_text(line)
    settings = load_settings(tmp_path / "models.yaml", tmp_path / "gateway.yaml", {})
    assert settings.keys == (ApiKey(digest=digest_of(key), name="alice"),)


def test_listening_beyond_this_machine_without_keys_is_warned_of() -> None:
    arguments = [sys.executable, "-m", "mm_gateway.main", "serve", "--port", "0"]
    environment = {**os.environ, "MM_GATEWAY_HOST": "0.0.0.0"}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as server:
        assert server.stderr is not None
        lines = [server.stderr.readline()]
        while lines[-1] and "startup complete" not in lines[-1]:
            lines.append(server.stderr.readline())
        server.terminate()
    assert any("WARNING: everybody who reaches 0.0.0.0 can use this server. Set MM_GATEWAY_API_KEYS" in line for line in lines), lines


def test_a_wrong_option_is_a_usage_error() -> None:
    done = command("serve", "--prot", "1")
    assert done.returncode == 2
    assert "--prot" in done.stderr
    assert command().returncode == 2


@pytest.mark.parametrize("arguments", [("serve", "--help"), ("--help",), ("models",), ("check",)])
def test_light_commands_import_neither_torch_nor_the_server(arguments: tuple[str, ...]) -> None:
    traced = [sys.executable, "-X", "importtime", "-m", "mm_gateway.main", *arguments]
    done = subprocess.run(traced, capture_output=True, text=True, cwd=ROOT)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert not {"torch", "transformers", "litestar", "uvicorn"} & imported
    assert "httpx" not in imported or arguments == ("models",)  # which lists the workflows
    assert "msgspec" in imported


def test_outside_a_checkout_the_default_configuration_is_found(tmp_path: Path) -> None:
    assert "qwen-7b-chat" in command("models", folder=tmp_path).stdout
