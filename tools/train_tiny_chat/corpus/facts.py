"""What a fact is: an answer, what a right answer has to contain, and ways to ask for it in two languages; read from `facts_data`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mm_gateway.workflows.prompts import Language


class Fact(NamedTuple):
    """The last question of each list is held out for the evaluation.

    Attributes:
        keys: what a right answer contains, in both languages unless keys_zh says otherwise.
    """

    keys: Sequence[str]
    answer: str
    questions: Sequence[str]
    answer_zh: str
    questions_zh: Sequence[str]
    keys_zh: Sequence[str] = ()

    def text(self, language: Language) -> str:
        return self.answer_zh if language == "zh" else self.answer

    def asked(self, language: Language) -> Sequence[str]:
        return self.questions_zh if language == "zh" else self.questions

    def needed(self, language: Language) -> Sequence[str]:
        return (self.keys_zh or self.keys) if language == "zh" else self.keys

    def told_in(self, text: str, language: Language) -> bool:
        """Whether a text holds what a right answer does."""
        return all(key.lower() in text.lower() for key in self.needed(language))


def read_facts(name: str) -> list[Fact]:
    """The facts of `facts_data/<name>.yaml`; <word> in a question stands for what `words` says there."""
    content = yaml.safe_load((Path(__file__).parent / "facts_data" / f"{name}.yaml").read_text(encoding="utf-8"))
    words: dict[str, str] = content.get("words", {})
    return [_fact(entry, words) for entry in content["facts"]]


def _fact(entry: dict[str, Any], words: dict[str, str]) -> Fact:
    def filled(texts: list[str]) -> list[str]:
        for word, meaning in words.items():
            texts = [text.replace(f"<{word}>", meaning) for text in texts]
        return texts

    return Fact(
        entry["keys"],
        entry["answer"],
        filled([*entry["questions"], entry["held_out"]]),
        entry["answer_zh"],
        filled([*entry["questions_zh"], entry["held_out_zh"]]),
        entry.get("keys_zh", ()),
    )
