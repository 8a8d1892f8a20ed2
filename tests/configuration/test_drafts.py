"""`speculative_model` of an entry: the name of another one, or keys as of one; mistakes are told before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ConfigurationError

SMALL = "small: {model_name: org/small, path: files, quantization: 4bit, aliases: [tiny], pin: true, ttl_s: 9}"


def models(folder: Path, *entries: str) -> dict[str, ModelConfig]:
    lines = "".join(f"  {entry}\n" for entry in entries)
    (folder / "models.yaml").write_text(f"models:\n{lines}")
    (folder / "gateway.yaml").write_text("{}")
    return dict(load_settings(folder / "models.yaml", folder / "gateway.yaml", {}).models)


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_a_name_is_the_entry_that_it_names(tmp_path: Path, name: str) -> None:
    found = models(tmp_path, f"big: {{model_name: org/big, speculative_model: {name}, speculative_tokens: 5}}", SMALL)
    # Without what does not change what it guesses.
    draft = ModelConfig(model_name="org/small", path=str(tmp_path / "files"), quantization="4bit")
    assert (found["big"].speculative_model, found["big"].speculative_tokens) == (draft, 5)
    assert found["small"].speculative_model is None and found["small"].pin


def test_it_may_be_an_entry_of_its_own(tmp_path: Path) -> None:
    found = models(tmp_path, "big: {model_name: org/big, speculative_model: {model_name: org/small, path: files}}")
    assert found["big"].speculative_model == ModelConfig(model_name="org/small", path=str(tmp_path / "files"))


def test_an_entry_that_has_a_draft_guesses_without_it_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    middle = "middle: {model_name: org/middle, speculative_model: small}"
    draft = models(tmp_path, "big: {model_name: org/big, speculative_model: middle}", middle, SMALL)["big"].speculative_model
    assert draft == ModelConfig(model_name="org/middle")
    assert "model big: speculative_model: middle guesses without its own speculative_model" in caplog.text


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["big: {model_name: b, speculative_model: nobody}"], "big: speculative_model: 'nobody' is not among the models"),
        (["big: {model_name: b, speculative_model: big}"], "goes round: big -> big"),
        (
            ["big: {model_name: b, speculative_model: other}", "other: {model_name: o, speculative_model: big}"],
            "goes round: big -> other -> big",
        ),
        (
            ["big: {model_name: b, speculative_model: far}", "far: {model_name: f, backend: mock}"],
            "big: speculative_model: has to be a local model, this one is mock",
        ),
        (
            ["far: {model_name: f, backend: mock, speculative_model: {model_name: s}}"],
            "is only allowed with backend: local",
        ),
        (["big: {model_name: b, speculative_model: {model: s}}"], "big: speculative_model: unknown key"),
        (
            ["big: {model_name: b, speculative_model: {model_name: m, speculative_model: {model_name: s}}}"],
            "big: speculative_model: speculative_model: means nothing for a model that guesses",
        ),
        (
            ["big: {model_name: b, speculative_model: {model_name: m, pin: true}}"],
            "big: speculative_model: pin: means nothing for a model that guesses",
        ),
        (["big: {model_name: b, speculative_tokens: 16}"], "speculative_tokens: got 16, allowed is 1 to 15, or null"),
        (
            ["big: {model_name: b, speculative_model: 5}"],
            "got 5, allowed is keys and values of an entry or a text or null",
        ),
    ],
)
def test_mistakes(tmp_path: Path, entries: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        models(tmp_path, *entries)
    assert says in str(error.value)
