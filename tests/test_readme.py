"""Every example of the README that needs no download runs as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.gateways import free_port, stop_gateway, wait_for

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [match.groups() for match in re.finditer(r"```([\w ]+)\n(.*?)```", README, re.DOTALL)]
ADDRESS = "http://127.0.0.1:8000"
# What is in an example with the client from above -> what it prints, whatever words the model draws.
EXPECTED = {
    "search-qa": "",
    "lesson-pack": "'name': 'exercises', 'success': True",
    "chat-generate": "",
    "class City": "inhabitants=",
    "responses.create": "",
    "embeddings.create": "256 ",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, gpt2_checkpoint: Path) -> Iterator[str]:
    """A gateway on its built-in default, in a folder where a small checkpoint is found under the name of the one on the hub."""
    port = free_port()
    folder = tmp_path_factory.mktemp("readme")
    (folder / "gpt2").symlink_to(gpt2_checkpoint)
    log = folder / "stderr.txt"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MM_GATEWAY_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mm_gateway.main", "serve", "--port", str(port)], stderr=stderr, cwd=folder, env=clean
        )
    gateway = wait_for(process, port, log)
    yield gateway.address
    stop_gateway(gateway)


@pytest.mark.parametrize("script", [text for language, text in BLOCKS if language == "bash"])
def test_curl_examples(address: str, script: str) -> None:
    done = subprocess.run(["sh", "-c", script.replace(ADDRESS, address)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    if "stream" in script:
        assert done.stdout.endswith("data: [DONE]\n\n")
    elif "error=429" in script:
        assert "HTTP/1.1 429" in done.stdout and "retry-after: 1" in done.stdout
    elif "/tokenize" in script:
        assert '"count":' in done.stdout
    else:
        assert '"id":"tiny-chat"' in done.stdout and '"id":"mm-orch/search-qa"' in done.stdout


@pytest.mark.parametrize("script", [text for language, text in BLOCKS if language == "python"])
def test_python_examples(address: str, script: str, gpt2_checkpoint: Path, tmp_path: Path) -> None:
    # A folder of that name is found before the hub.
    (tmp_path / "gpt2").symlink_to(gpt2_checkpoint)
    script = script.replace(ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


@pytest.mark.parametrize(("part", "printed"), EXPECTED.items())
def test_examples_with_the_client_from_above(address: str, part: str, printed: str) -> None:
    (script,) = [text for language, text in BLOCKS if language == "py" and part in text]
    client = f"from openai import OpenAI\nclient = OpenAI(base_url='{address}/v1', api_key='none')\n"
    done = subprocess.run([sys.executable, "-c", client + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout and done.stdout.strip()


def test_every_example_with_the_client_from_above_is_run() -> None:
    assert len(EXPECTED) == len([text for language, text in BLOCKS if language == "py"])


def test_the_workflow_to_start_from_is_the_one_that_is_tested() -> None:
    assert [text for language, text in BLOCKS if language == "python workflow"] == [(ROOT / "tests/workflows/echo_twice.py").read_text()]


def test_the_configuration_examples_are_valid(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    for language, text in BLOCKS:
        if language == "yaml":
            file = tmp_path / "models.yaml"
            file.write_text(text)
            done = subprocess.run(
                [sys.executable, "-m", "mm_gateway.main", "check", "--models", str(file)], capture_output=True, text=True, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr


def test_the_example_of_keys_is_valid(tmp_path: Path) -> None:
    for language, text in BLOCKS:
        if language in ("yaml gateway", "yaml keys"):
            (tmp_path / f"{language.split()[1]}.yaml").write_text(text)
    command = [sys.executable, "-m", "mm_gateway.main", "check", "--config", str(tmp_path / "gateway.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_key_of_a_model_is_in_the_table() -> None:
    from mm_gateway.configuration.settings import ModelConfig

    table = README[README.index("| key | meaning |") : README.index("`config/gateway.yaml` says how")]
    assert [name for name in ModelConfig.__struct_fields__ if f"`{name}`" not in table and name != "aliases"] == []
