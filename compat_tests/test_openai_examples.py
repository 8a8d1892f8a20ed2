"""Examples of openai-python, as its source archive has them: those about served endpoints run, others are refused by name.

`make compat` downloads the archive; nothing of it is kept here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

pytestmark = pytest.mark.environments

ARCHIVES = Path(__file__).parents[1] / ".compat" / "openai-examples"
SERVED = [
    *("demo", "async_demo", "streaming", "module_client", "httpx2_client"),
    *("parsing", "parsing_stream", "parsing_tools", "parsing_tools_stream"),
    *("responses_input_tokens", "responses/streaming", "responses/streaming_tools"),
    *("responses/structured_outputs", "responses/structured_outputs_tools"),
    *("responses/background", "responses/background_async", "responses/background_streaming", "responses/background_streaming_async"),
]
REFUSED = {"responses/multi_agent_streaming": "multi_agent"}
MODELS = ["gpt-5", "gpt-5.2", "gpt-5.5", "gpt-5.6", "gpt-5.6-sol", "gpt-4o-2024-08-06"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A mock that has the names of the examples' models."""
    folder = tmp_path_factory.mktemp("examples-gateway")
    models: dict[str, dict[str, object]] = {"mock": {"model_name": "mock", "backend": "mock", "aliases": MODELS}}
    gateway = start_gateway(folder, models, free_port(), XDG_DATA_HOME=str(folder / "data"))
    yield gateway
    stop_gateway(gateway)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archives = sorted(ARCHIVES.glob("openai-*.tar.gz"))
    assert archives, f"there is no archive in {ARCHIVES}: run `make compat`"
    folder = tmp_path_factory.mktemp("examples")
    with tarfile.open(archives[-1]) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("openai-*/examples"))


def run(example: str, examples: Path, gateway: Gateway) -> subprocess.CompletedProcess[str]:
    address = f"{gateway.address}/v1/"
    # One of them has the address written into it.
    source = (examples / f"{example}.py").read_text().replace('"https://..."', repr(address))
    return subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("example", SERVED)
def test_an_example_of_what_is_served_runs(example: str, examples: Path, served: Gateway) -> None:
    done = run(example, examples, served)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("example", REFUSED)
def test_an_example_of_what_is_not_served_is_refused_by_name(example: str, examples: Path, served: Gateway) -> None:
    done = run(example, examples, served)
    assert done.returncode != 0
    assert "Error code: 400" in done.stderr and REFUSED[example] in done.stderr.splitlines()[-1], done.stderr
