"""One training example, and its tokens: rendered as the gateway's ChatML template does, with the positions that are learned."""

from __future__ import annotations

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
        learn_all: also the other turns' tokens, where they carry something worth it.
    """

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    learn_all: bool = False


@dataclass(frozen=True)
class PlainText:
    """A text without turns, for completion; all of it is learned."""

    skill: str
    text: str


Example = Conversation | PlainText


class Encoded(NamedTuple):
    """Token ids, and for each whether it is learned."""

    ids: list[int]
    learned: list[bool]


def chat(skill: str, *turns: str, system: str | None = None) -> Conversation:
    """Turns of user and assistant, alternating."""
    messages = [Message(role="system", content=system)] if system is not None else []
    messages += [Message(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(turns)]
    return Conversation(skill, tuple(messages))


def encode(example: Example, tokenizer: Tokenizer) -> Encoded:
    """Ids as at serving: each turn's text is encoded by itself, between the control tokens."""
    if isinstance(example, PlainText):
        ids = [*tokenizer.encode(example.text).ids, token_id(tokenizer, "<|endoftext|>")]
        return Encoded(ids, [True] * len(ids))
    turns: Sequence[Message] = example.messages
    if example.tools or any(message.role == "tool" or message.tool_calls for message in turns):
        turns, _ = Hermes().flatten(turns, example.tools)
    start, end = token_id(tokenizer, "<|im_start|>"), token_id(tokenizer, "<|im_end|>")
    newline = tokenizer.encode("\n").ids
    ids: list[int] = []
    learned: list[bool] = []
    for turn in turns:
        if turn.role == "assistant":
            head, body = [start, *tokenizer.encode("assistant\n").ids], [*tokenizer.encode(turn.content).ids, end]
        else:
            head, body = [start, *tokenizer.encode(f"{turn.role}\n{turn.content}").ids, end], []
        tail = newline
        ids += [*head, *body, *tail]
        learned += [*([example.learn_all] * len(head)), *([True] * len(body)), *([False] * len(tail))]
    return Encoded(ids, learned)


def token_id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None, f"the tokenizer has no {text}"
    return found
