"""Which pooling a model gets: configured, trained with, or the default; and which models are unfit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle, read_embedding_style

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def style_of(folder: Path, modules: Any = None, pooling: Any = None, config: Any = None, **entry: Any) -> EmbeddingStyle:
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return read_embedding_style(folder, ModelConfig(model_name="m", **entry))


def test_a_model_that_says_nothing_is_pooled_by_the_mean(tmp_path: Path) -> None:
    assert style_of(tmp_path) == EmbeddingStyle("mean", matryoshka=False, unfit=None)


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 8}, "last"),
        ({"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_the_pooling_that_it_was_trained_with_is_taken(tmp_path: Path, settings: Any, pooling: str) -> None:
    assert style_of(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], settings) == EmbeddingStyle(pooling)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("modules", "settings", "says"),
    [
        ([TRANSFORMER, POOLING, DENSE], {"pooling_mode_lasttoken": True}, "Dense"),
        ([TRANSFORMER, POOLING], {"pooling_mode_cls_token": True}, "pooling_mode_cls_token"),
        ([TRANSFORMER, POOLING], {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ([TRANSFORMER, POOLING], {}, "none"),
        ({"a": "b"}, None, "cannot be read"),
    ],
)
def test_what_is_not_computed_makes_it_unfit(tmp_path: Path, modules: Any, settings: Any, says: str) -> None:
    assert says in (style_of(tmp_path, modules, settings).unfit or "")


def test_the_configuration_wins(tmp_path: Path) -> None:
    settings = {"pooling_mode_mean_tokens": True}
    assert style_of(tmp_path, [TRANSFORMER, POOLING], settings, embedding_pooling="last") == EmbeddingStyle("last")


def test_matryoshka_is_configured_or_said_by_the_checkpoint(tmp_path: Path) -> None:
    assert style_of(tmp_path, matryoshka=True).matryoshka
    assert style_of(tmp_path, config={"matryoshka_dimensions": [64, 128]}).matryoshka
