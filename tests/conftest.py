"""Checkpoints that tests load, made once per test process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def gpt2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import checkpoints

    return checkpoints.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import checkpoints

    return checkpoints.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwen2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import checkpoints

    return checkpoints.qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(params=["gpt2", "llama", "qwen2"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Each family in turn."""
    return request.getfixturevalue(f"{request.param}_checkpoint")
