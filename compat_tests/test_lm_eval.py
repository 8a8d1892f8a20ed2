"""lm-evaluation-harness: the gateway's log-likelihoods and texts are those of transformers in process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.gateways import Gateway, environment

TASKS = Path(__file__).parent / "lm_eval_tasks"
TRAINED = {"tiny-chat": Path(__file__).parents[1] / "mm_gateway" / "builtin_models" / "tiny_chat"}
"""Unlike random weights they end a text where it has an end, and lm-eval takes the last log-probability for that of the end."""


def flat(value: Any) -> list[Any]:
    return [entry for each in value for entry in flat(each)] if isinstance(value, list) else [value]


@pytest.mark.environments
@pytest.mark.parametrize("family", ["gpt2", "llama", *TRAINED])
def test_evaluations_equal_those_in_process(gateway: Gateway, family: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment("lm-eval"), "run.py", gateway.address, family, str((gateway.checkpoints | TRAINED)[family])],
        cwd=TASKS,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = found["in process"]
    assert len(flat(expected["gateway_choice"])) == 8 * 4 * 2
    for way in ("tokens", "text"):
        for task, responses in found[way].items():
            for ours, theirs in zip(flat(responses), flat(expected[task]), strict=True):
                assert ours == (pytest.approx(theirs, abs=1e-4, rel=1e-6) if isinstance(theirs, float) else theirs), (way, task)
