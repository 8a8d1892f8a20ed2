"""One training example, and its tokens: rendered as the gateway's ChatML template does, with the positions that are learned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from mm_gateway.chat_templates.tool_formats.hermes import Hermes
from mm_gateway.core import Message, Tool


@dataclass(frozen=True)
class Conversation:
    """Messages whose assistant turns are learned.

    Attributes:
        skill: what it teaches; the evaluation reports by it.
        given: how answers begin that a grammar begins, so that this is not learned.
    """

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    given: str = ""


@dataclass(frozen=True)
class PlainText:
    """A text without turns, for completion; all of it is learned."""

    skill: str
    text: str


Example = Conversation | PlainText


class Encoded(NamedTuple):
    """Token ids, and for each how much it is learned: less than 1 in prompts, 1 in answers, more where an answer names a source."""

    ids: list[int]
    learned: list[float]


REPEATED = 0.3
"""How much a prompt's token is learned that follows its predecessor for the second time: this is how copying is learned early."""


CITED = 4.0
"""How much the number of a cited source is learned: one token among twenty, and the hardest of them."""


def chat(skill: str, *turns: str, system: str | None = None) -> Conversation:
    """Turns of user and assistant, alternating."""
    messages = [Message(role="system", content=system)] if system is not None else []
    messages += [Message(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(turns)]
    return Conversation(skill, tuple(messages))


def encode(example: Example, tokenizer: Tokenizer) -> Encoded:
    """Ids as at serving: each turn's text is encoded by itself, between the control tokens; what reads like one is text."""
    tokenizer.encode_special_tokens = True
    if isinstance(example, PlainText):
        ids = [*tokenizer.encode(example.text).ids, token_id(tokenizer, "<|endoftext|>")]
        return Encoded(ids, [1.0] * len(ids))
    turns: Sequence[Message] = example.messages
    if example.tools or any(message.role == "tool" or message.tool_calls for message in turns):
        turns, _ = Hermes().flatten(turns, example.tools)
    start, end = token_id(tokenizer, "<|im_start|>"), token_id(tokenizer, "<|im_end|>")
    newline = tokenizer.encode("\n").ids
    ids: list[int] = []
    learned: list[float] = []
    for turn in turns:
        if turn.role == "assistant":
            head, body = [start, *tokenizer.encode("assistant\n").ids], [*tokenizer.encode(turn.content).ids, end]
        else:
            head, body = [start, *tokenizer.encode(f"{turn.role}\n{turn.content}").ids, end], []
        ids += [*head, *body, *newline]
        learned += [*([0.0] * len(head)), *_learned(body, tokenizer), *([0.0] * len(newline))]
        if example.given and body and turn.content.startswith(example.given):
            begin, given = len(learned) - len(newline) - len(body), len(tokenizer.encode(example.given).ids)
            learned[begin : begin + given] = [0.0] * given
    seen: set[tuple[int, int]] = set()
    for at, pair in enumerate(itertools.pairwise(ids), 1):
        if pair in seen and not learned[at]:
            learned[at] = REPEATED
        seen.add(pair)
    return Encoded(ids, learned)


def _learned(body: Sequence[int], tokenizer: Tokenizer) -> list[float]:
    """Of an answer: all of it, and the numbers in square brackets the most."""
    learned = [1.0] * len(body)
    tokens = [tokenizer.id_to_token(token) or "" for token in body]
    for at, (before, token) in enumerate(itertools.pairwise(tokens), 1):
        if token.isdigit() and before.endswith("["):
            learned[at] = CITED
    return learned


def token_id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None, f"the tokenizer has no {text}"
    return found
