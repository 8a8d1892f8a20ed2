"""The built-in model answers through the real backend and engine: a quick part of its held-out evaluation, and what its card promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mm_gateway.configuration.loader import load_settings
from mm_gateway.errors import ConfigurationError
from tools.train_tiny_chat.cases import Case, all_cases
from tools.train_tiny_chat.evaluate import Score, evaluate

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "mm_gateway" / "builtin_models" / "tiny_chat"

# skill -> (how many cases, share that has to be right); the card reports the whole evaluation.
QUICK = {
    "gateway facts en": (24, 0.85),
    "gateway facts zh": (24, 0.8),
    "sources en": (20, 0.6),
    "sources zh": (10, 0.6),
    "search in the documents en": (12, 0.7),
    "search in the documents zh": (12, 0.7),
    "follow-ups": (12, 0.75),
    "tool calls": (12, 0.6),
    "lesson: plan": (10, 0.6),
    "lesson: explanation": (5, 0.8),
}


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    chosen: list[Case] = []
    for skill, (count, _) in QUICK.items():
        cases = [case for case in all_cases() if case.skill == skill]
        chosen += cases[:: max(1, len(cases) // max(1, count))][:count]
    return evaluate(str(MODEL), chosen)


@pytest.mark.parametrize("skill", QUICK)
def test_held_out_questions_are_answered(scores: dict[str, Score], skill: str) -> None:
    assert scores[skill].share >= QUICK[skill][1], scores[skill].wrong


def test_answers_end_by_themselves(scores: dict[str, Score]) -> None:
    assert scores["stop token"].share >= 0.9


def test_it_is_the_default_and_the_first_of_the_shipped_configuration() -> None:
    settings = load_settings(ROOT / "config" / "models.yaml", ROOT / "config" / "gateway.yaml", {})
    assert settings.default_model == next(iter(settings.models)) == "tiny-chat"
    assert settings.models["tiny-chat"].path == str(MODEL)
    assert settings.models["tiny-chat"].preload


def test_a_built_in_path_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: {m: {model_name: m, path: 'builtin:big-chat'}}")
    (tmp_path / "gateway.yaml").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"model m: path: 'builtin:big-chat' is no model of the package; there are builtin:tiny-chat"
    ):
        load_settings(tmp_path / "models.yaml", tmp_path / "gateway.yaml", {})


def test_the_checkpoint_is_small_and_its_card_tells_the_truth() -> None:
    size = (MODEL / "model.safetensors").stat().st_size
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    assert size <= 16_000_000
    assert f"{size / 1e6:.1f} MB" in card
    config = json.loads((MODEL / "config.json").read_text())
    assert f"{config['num_hidden_layers']} layers" in card
    assert re.search(r"\| gateway facts en \| \d+ of \d+ \|", card)
