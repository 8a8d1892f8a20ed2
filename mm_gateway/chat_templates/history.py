"""Makes a conversation fit a context by leaving out its oldest turns; knows no tokenizer beyond a function that encodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mm_gateway.core import Message
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError

REPLY_TOKENS = 256
"""Room for the reply where the request sets no limit, at most a quarter of the context."""


class Fitting(NamedTuple):
    """ids: of the tokens. left_out: places of the messages that they are without."""

    ids: list[int]
    left_out: range = range(0)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The path of what is left out, as a slice: `messages[1:7]`."""
        return (f"messages[{self.left_out.start}:{self.left_out.stop}]",) if self.left_out else ()


def encode_fitting(
    encode: Callable[[Sequence[Message]], list[int]], messages: Sequence[Message], *, context_length: int, reply_tokens: int | None
) -> Fitting:
    """A conversation as tokens, without as many of its oldest turns as have to go.

    System messages at its beginning stay, and so does everything from the last user message on. What is left of the
    turns between begins with a user message, since many templates ask for that. A conversation that fits is not touched.

    Args:
        encode: of a conversation; may refuse one that is too long. context_length: tokens of prompt and reply together.
        reply_tokens: tokens that the request asks for at most; None: no limit set.

    Returns:
        The tokens; those of the whole conversation where even the shortest form does not fit, for the engine to refuse.

    Raises:
        ContextLengthExceededError: of `encode`, likewise.
    """
    too_long: ContextLengthExceededError | None = None
    whole: list[int] | None = None
    try:
        whole = encode(messages)
    except ContextLengthExceededError as error:
        too_long = error
    if whole is not None and len(whole) + (1 if reply_tokens is None else reply_tokens) <= context_length:
        return Fitting(whole)
    limit = context_length - reply_room(context_length, reply_tokens)
    head = next((index for index, message in enumerate(messages) if message.role not in ("system", "developer")), len(messages))
    # Where the rest may begin: at each user message after the first turn, the last one at the latest.
    starts = [index for index, message in enumerate(messages) if index > head and message.role == "user"]
    low, high = 0, len(starts)
    fitting: Fitting | None = None
    while low < high:  # the more is left out, the shorter it is
        middle = (low + high) // 2
        try:
            ids = encode([*messages[:head], *messages[starts[middle] :]])
        except ContextLengthExceededError:
            ids = None
        if ids is not None and len(ids) <= limit:
            fitting, high = Fitting(ids, range(head, starts[middle])), middle
        else:
            low = middle + 1
    if fitting is not None:
        return fitting
    if whole is None:
        assert too_long is not None
        raise too_long
    return Fitting(whole)


def reply_room(context_length: int, reply_tokens: int | None) -> int:
    """Tokens that are kept free for a reply."""
    return min(REPLY_TOKENS, context_length // 4) if reply_tokens is None else reply_tokens


def tokens_kept(truncate_prompt_tokens: int, context_length: int, reply_tokens: int | None) -> int:
    """How many tokens of a prompt are read. reply_tokens: as for `reply_room`.

    Args:
        truncate_prompt_tokens: >= 0; -1: as many as the context holds beside the reply.

    Raises:
        InvalidRequestError: more than the context holds, as in vLLM.
    """
    if truncate_prompt_tokens > context_length:
        found = f"truncate_prompt_tokens: {truncate_prompt_tokens} is more than the {context_length} tokens of this model's context"
        raise InvalidRequestError(found, param="truncate_prompt_tokens")
    return truncate_prompt_tokens if truncate_prompt_tokens >= 0 else max(context_length - reply_room(context_length, reply_tokens), 1)


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where each turn begins: at every user message, and at the first message whatever it is."""
    return [index for index, message in enumerate(messages) if message.role == "user" or index == 0]
