"""What a newcomer meets: the gateway as shipped, started in an empty folder without a network; its banner, its first answer, its advice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway, free_port, stop_gateway, wait_for


def offline(hub: Path) -> dict[str, str]:
    """An environment without settings of the gateway, a network, or downloads."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MM_GATEWAY_", "HF_"))}
    return {**clean, "HF_HUB_OFFLINE": "1", "HF_HOME": str(hub), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("first_contact")
    log = folder / "stderr.txt"
    port = free_port()
    command = [sys.executable, "-m", "mm_gateway.main", "serve", "--port", str(port)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, cwd=folder, env=offline(folder / "hub"))
    started = wait_for(process, port, log)
    yield started
    stop_gateway(started)


def ask(gateway: Gateway, **body: object) -> dict[str, object]:
    command = ["curl", "-s", f"{gateway.address}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout)


def test_the_banner_says_where_what_and_how_and_its_curl_line_works(gateway: Gateway) -> None:
    banner = gateway.log.read_text()
    assert f"mm_gateway serves {gateway.address}/v1" in banner
    assert re.search(r"models: +tiny-chat, smollm2-135m, mock, gpt2.*, mm-orch/search-qa", banner)
    assert re.search(rf"docs: +{gateway.address}/schema", banner)
    assert re.search(rf"page: +{gateway.address}/$", banner, re.MULTILINE)
    (line,) = re.findall(r"curl .*", banner)
    answered = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=180, check=True)
    assert json.loads(answered.stdout)["choices"][0]["message"]["content"].strip()


def test_a_model_that_is_not_configured_is_answered_with_those_that_are(gateway: Gateway) -> None:
    reply = ask(gateway, model="gpt-5", messages=[{"role": "user", "content": "Hello!"}])
    error = reply["error"]
    assert isinstance(error, dict)
    assert error["code"] == "model_not_found"
    assert "tiny-chat" in error["message"] and "mock" in error["message"]


def test_a_hub_model_without_a_network_says_what_to_do(gateway: Gateway) -> None:
    reply = ask(gateway, model="gpt2", messages=[{"role": "user", "content": "Hello!"}])
    error = reply["error"]
    assert isinstance(error, dict)
    assert re.search(r"hub cannot be reached.*set path to its folder", error["message"])


def test_in_the_terminal_it_says_so_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mm_gateway.main", "query", "Hello!", "--model", "gpt2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path, env=offline(tmp_path / "hub"))
    assert done.returncode == 1
    assert re.fullmatch(r"error: gpt2 .*hub cannot be reached.*set path to its folder\n", done.stderr)
