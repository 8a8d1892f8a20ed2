"""The facts about the gateway as documents for people, and for the search over them."""

from __future__ import annotations

import re
from pathlib import Path

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.corpus.docs import ROOT
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.real_sources import QUESTIONS

DOCUMENTS: dict[Language, Path] = {"en": ROOT / "docs" / "questions.en.md", "zh": ROOT / "docs" / "questions.zh.md"}
_CHOICE = re.compile(r"\(([^()|]*)\|[^()]*\)")


def questions_and_answers(language: Language) -> str:
    """Markdown: each fact after the first way to ask for it."""
    entries = [f"## {_first(fact.asked(language)[0])}\n\n{fact.text(language)}" for fact in GATEWAY_FACTS]
    return "\n\n".join([f"# {QUESTIONS[language]}", *entries]) + "\n"


def _first(pattern: str) -> str:
    """With the first of every (a|b), innermost first."""
    while match := _CHOICE.search(pattern):
        pattern = pattern[: match.start()] + match[1] + pattern[match.end() :]
    return pattern
