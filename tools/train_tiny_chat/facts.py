"""Facts: an answer, what a right answer holds, and ways to ask for it in two languages; `data/gateway.yaml` and its like."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.templates import First, read

DOCS = Path(__file__).parents[2] / "docs"
_TITLES: dict[Language, str] = {"en": "Questions and answers", "zh": "问题与解答"}


class Wording(NamedTuple):
    """A fact in one language. held_out: the question that only the evaluation asks. questions and held_out are patterns."""

    keys: Sequence[str]
    answer: str
    questions: Sequence[str]
    held_out: str

    def told_in(self, text: str) -> bool:
        """Whether a text holds what a right answer does."""
        return all(key.lower() in text.lower() for key in self.keys)


Fact = dict[Language, Wording]


@functools.cache
def facts(name: str) -> list[Fact]:
    """The facts of `data/<name>.yaml`."""
    return [_fact(entry) for described in read(name)["facts"] for entry in _rows(described)]


def _rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An entry with `rows` stands for one a row, whose values take the place of the columns' names."""
    if "rows" not in entry:
        yield entry
        return
    text = json.dumps({name: value for name, value in entry.items() if name not in ("columns", "rows")}, ensure_ascii=False)
    for row in entry["rows"].splitlines():
        filled = text
        for column, value in zip(entry["columns"], row.split("|"), strict=True):
            filled = filled.replace(f"{{{column}}}", value)
        yield json.loads(filled)


def _fact(entry: dict[str, Any]) -> Fact:
    return {
        "en": Wording(entry["keys"], entry["answer"], entry["questions"], entry["held_out"]),
        "zh": Wording(entry.get("keys_zh") or entry["keys"], entry["answer_zh"], entry["questions_zh"], entry["held_out_zh"]),
    }


def document(language: Language) -> str:
    """docs/questions.*.md: each fact about the gateway after the first way to ask for it, for people and for search-qa."""
    told = [fact[language] for fact in facts("gateway")]
    entries = [f"## {First(0).expand(wording.questions[0])}\n\n{wording.answer}" for wording in told]
    return "\n\n".join([f"# {_TITLES[language]}", *entries]) + "\n"
