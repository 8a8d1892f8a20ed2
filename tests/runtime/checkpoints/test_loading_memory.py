"""Loads of the real model, in every precision: what they take at their peak, what stays, and what was foreseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.load_memory import CASES

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted by Linux")


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By case, measured one after the other in a process of their own."""
    folder = tmp_path_factory.mktemp("loads")
    done = subprocess.run([sys.executable, "-m", "tests.support.load_memory", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {str((load["source"], load["more"])): load for load in found}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_load_takes_little_more_than_what_stays(loads: dict[str, dict[str, Any]], case: tuple[str, dict[str, Any]]) -> None:
    load = loads[str(case)]
    assert load["stays"] > 0.95 * load["weights"]  # else something else was measured
    assert load["peak"] <= 1.15 * load["stays"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_real_model_takes_what_was_foreseen(loads: dict[str, dict[str, Any]], case: tuple[str, dict[str, Any]]) -> None:
    load = loads[str(case)]
    assert load["foreseen"] == pytest.approx(load["weights"], rel=0.05)
