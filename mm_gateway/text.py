"""What can be told of a text without a tokenizer: its language, about how many tokens it has, what it ends with."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]
"""Of the texts that the gateway itself writes."""


def is_name(text: str) -> bool:
    """Whether a text can be a name, on one line of a log or a terminal: it is printable, not empty, and without spaces around it."""
    return text.isprintable() and text != "" and text == text.strip()


def is_han(char: str) -> bool:
    """Whether a character is one of those that Chinese is written with."""
    return "\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" or "\U00020000" <= char <= "\U000323af"


def language_of(text: str) -> Language:
    """Chinese where a fifth of the letters is; a Chinese sentence may hold many foreign names."""
    letters = [char for char in text if char.isalpha()]
    return "zh" if sum(map(is_han, letters)) * 5 >= max(len(letters), 1) else "en"


def estimate_tokens(text: str) -> int:
    """Tokens of a text for a tokenizer that is not at hand: one a Chinese character, one for three other characters; on the high side."""
    han = sum(map(is_han, text))
    return han + -(-(len(text) - han) // 3)


def begun_at_end(text: str, literal: str) -> int:
    """Characters at the end of a text that may become `literal`, of which they are the beginning; never all of it."""
    return next((size for size in range(min(len(literal) - 1, len(text)), 0, -1) if text.endswith(literal[:size])), 0)
