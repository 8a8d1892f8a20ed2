"""What a fact is: an answer, what a right answer has to contain, and ways to ask for it in two languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
