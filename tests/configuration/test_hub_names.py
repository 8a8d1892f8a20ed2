from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mm_gateway.configuration.hub_names import gguf_models, gguf_parts, is_allowed, is_gguf_file, is_repository, split_file

NAMES = "gpt2 o/m o/m.1 o_/m_ O-1/m-2 / o/ /m o/m/x o..m o--m o/m.git .o/m o/-m o/m. ö/m .. . ~ o\\m".split()  # noqa: SIM905 - as people read it


@pytest.mark.parametrize("name", [*NAMES, "", "o m", "o/m\n", "o/" + "b" * 96, "o/" + "b" * 97])
def test_a_name_is_one_of_a_repository_as_the_hub_has_it(name: str) -> None:
    try:
        validate_repo_id(name)
        valid = True
    except HFValidationError:
        valid = False
    assert is_repository(name) is valid


@pytest.mark.parametrize(
    ("name", "patterns", "allowed"),
    [
        ("Qwen/Qwen3-0.6B", ["Qwen/*"], True),
        ("Qwen/Qwen3-0.6B", ["o/*", "Qwen/Qwen3-?.6B"], True),
        ("Qwen/Qwen3-0.6B", ["*/*"], True),
        ("Qwen/Qwen3-0.6B", ["*"], False),
        ("Qwen/Qwen3-0.6B", ["qwen/*"], False),
        ("Qwen/Qwen3-0.6B", ["Qwen/Qwen3"], False),
        ("Qwen/Qwen3-0.6B", [], False),
        ("gpt2", ["gpt?"], True),
        ("gpt2", ["*"], True),
        ("../m", ["*/*"], False),
        ("o/..", ["*/*"], False),
    ],
)
def test_a_star_stands_for_characters_of_one_part(name: str, patterns: list[str], allowed: bool) -> None:
    assert is_allowed(name, patterns) is allowed


def test_a_file_follows_a_colon() -> None:
    assert split_file("o/m:a/b.gguf") == ("o/m", "a/b.gguf")
    assert split_file("o/m") == ("o/m", None)
    assert split_file("o/m:") == ("o/m", "")


@pytest.mark.parametrize(
    ("file", "sound"),
    [
        ("m.gguf", True),
        ("q4/m-Q4_0.gguf", True),
        ("m.bin", False),
        ("../m.gguf", False),
        ("q/../../m.gguf", False),
        ("/m.gguf", False),
        (".gguf", False),
    ],
)
def test_a_gguf_file_stays_in_its_repository(file: str, sound: bool) -> None:
    assert is_gguf_file(file) is sound


@pytest.mark.parametrize("file", ["m.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-1-of-2.gguf", "m-00001-of-00002.bin"])
def test_a_file_that_is_no_part_stands_alone(file: str) -> None:
    assert gguf_parts(file) == [file]


def test_every_part_names_all_and_the_first_stands_for_them() -> None:
    parts = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"]
    assert gguf_parts(parts[0]) == gguf_parts(parts[1]) == parts
    assert gguf_models(["config.json", *parts, "n.gguf"]) == ["q/m-00001-of-00002.gguf", "n.gguf"]
