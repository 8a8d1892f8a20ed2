"""Which turns go when a conversation does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mm_gateway.chat_templates.history import encode_fitting
from mm_gateway.core import Message, Role


def encode(messages: Sequence[Message]) -> list[int]:
    """One token a word, and one a message."""
    return [hash(word) for message in messages for word in ["<turn>", *message.content.split()]]


def conversation(*turns: tuple[Role, int]) -> list[Message]:
    """Turns of so many words each, all different."""
    return [Message(role, " ".join(f"{index}-{word}" for word in range(words))) for index, (role, words) in enumerate(turns)]


LONG = conversation(("system", 3), ("user", 10), ("assistant", 10), ("user", 10), ("assistant", 10), ("user", 5))


def fitted(context_length: int, reply_tokens: int | None = 4, messages: list[Message] = LONG) -> list[int]:
    return encode_fitting(encode, messages, context_length=context_length, reply_tokens=reply_tokens).ids


def test_a_conversation_that_fits_is_not_touched() -> None:
    assert fitted(len(encode(LONG)) + 4) == encode(LONG)
    assert fitted(len(encode(LONG)) + 1, None) == encode(LONG)


def test_the_oldest_turns_go_first_and_the_rest_begins_with_the_user() -> None:
    assert fitted(len(encode(LONG)) + 3) == encode([LONG[0], *LONG[3:]])
    assert fitted(4 + 6 + 4) == encode([LONG[0], LONG[5]])


def test_without_a_limit_room_for_a_reply_is_left() -> None:
    ids = fitted(50, None)
    assert ids == encode([LONG[0], *LONG[3:]])
    assert len(ids) <= 50 - 12


def test_what_cannot_fit_stays_whole_to_be_refused() -> None:
    assert fitted(4 + 6 + 3) == encode(LONG)
    alone = conversation(("user", 30))
    assert fitted(10, 4, alone) == encode(alone)


TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.integers(0, 12)), min_size=1, max_size=12)


@given(turns=TURNS, systems=st.integers(0, 2), limit=st.integers(1, 80))
def test_system_messages_and_the_last_user_message_always_stay(turns: list[tuple[Role, int]], systems: int, limit: int) -> None:
    opening: list[tuple[Role, int]] = [("system", 2)] * systems
    messages = conversation(*opening, *turns)
    found = fitted(limit, 1, messages)
    whole = encode(messages)
    assert found == whole or len(found) + 1 <= limit
    head = encode(messages[:systems])
    assert found[: len(head)] == head
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=0)
    tail = encode(messages[last:])
    assert found[len(found) - len(tail) :] == tail
