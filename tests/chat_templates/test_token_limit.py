"""Texts that cannot fit are refused for the price of what would fit, however long they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import pytest

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.token_limit import PIECE_CHARACTERS, TokenLimit
from mm_gateway.core import Message
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError
from mm_gateway.work_pools import WorkPool


class Words:
    """A token a word, and a count of the characters that were encoded."""

    def __init__(self) -> None:
        self.characters = 0
        self.control_tokens: Mapping[str, int] = {"<end>": 1, "<start>": 2}

    def encode(self, text: str) -> list[int]:
        self.characters += len(text)
        return [len(word) for word in text.split()]

    encode_plain = encode

    def in_front(self) -> list[int]:
        return []


def limit(tokens: int, longest: int = 16) -> TokenLimit:
    return TokenLimit(tokens, lambda: longest, param="messages")


TEMPLATE = "{% for message in messages %}<start>{{ message.content }}<end>{% endfor %}"


def test_a_text_whose_bytes_cannot_fit_is_not_encoded_at_all() -> None:
    words = Words()
    with pytest.raises(ContextLengthExceededError, match="at least 62500 tokens") as caught:
        limit(1000).encode(words.encode, "x" * 10**6)
    assert words.characters == 0
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"


def test_a_text_with_too_many_tokens_is_encoded_no_further_than_that_shows() -> None:
    words = Words()
    with pytest.raises(ContextLengthExceededError, match="at least"):
        limit(10_000, longest=10**6).encode(words.encode, "so " * 10**6)
    assert words.characters <= 2 * PIECE_CHARACTERS


@pytest.mark.parametrize("length", [1, PIECE_CHARACTERS // 3, PIECE_CHARACTERS, 10 * PIECE_CHARACTERS])
def test_a_text_that_fits_is_encoded_as_if_there_were_no_limit(length: int) -> None:
    text = "one two " * length
    assert limit(2 * length).encode(Words().encode, text) == Words().encode(text)


def test_a_long_word_is_cut_where_it_has_to_be() -> None:
    assert limit(10, longest=10**9).encode(Words().encode, "x" * 10 * PIECE_CHARACTERS) == [10 * PIECE_CHARACTERS]


@pytest.mark.parametrize("text", ["so " * 10**6, "<end> so " * 10**5, "x" * 10**6])
def test_a_conversation_that_cannot_fit_costs_what_would_fit(text: str) -> None:
    words = Words()
    encoder = ChatEncoder(TEMPLATE, words)
    with pytest.raises(ContextLengthExceededError):
        encoder.encode([Message("user", "Hello"), Message("user", text)], limit=limit(1000))
    assert words.characters <= 2 * PIECE_CHARACTERS


def test_a_conversation_that_is_a_little_too_long_is_counted_to_its_end() -> None:
    words = Words()
    assert len(ChatEncoder(TEMPLATE, words).encode([Message("user", "so " * 1500)], limit=limit(1000))) == 1501


def test_control_tokens_are_found_wherever_they_stand_in_a_long_text() -> None:
    """The text is searched in windows; a name may lie across two of them."""
    encoder = ChatEncoder(TEMPLATE, Words())
    for before in range(PIECE_CHARACTERS - 8, PIECE_CHARACTERS + 2):
        ids = encoder.encode([Message("user", "x" * before + "<end>")])
        assert ids.count(1) == 1 and ids.count(2) == 1 and before + len("<end>") in ids


def test_a_text_of_few_long_tokens_has_a_bound_in_bytes() -> None:
    words = Words()
    with pytest.raises(InvalidRequestError, match="holds a text of 1600001 bytes; at most 1600000 are tokenized") as caught:
        limit(100_000, longest=10**6).encode(words.encode, "x" * 1_600_001)
    assert caught.value.param == "messages" and not isinstance(caught.value, ContextLengthExceededError)


async def test_a_text_is_read_no_further_once_its_client_has_left() -> None:
    begun, left, words = threading.Event(), threading.Event(), Words()

    def encode(text: str) -> list[int]:
        begun.set()
        left.wait(10)
        return words.encode(text)

    pool = WorkPool("test", 1)
    asked = asyncio.create_task(pool.run(limit(10**6).encode, encode, "so " * (10 * PIECE_CHARACTERS)))
    await asyncio.to_thread(begun.wait, 10)
    asked.cancel()
    await asyncio.wait([asked])
    left.set()
    await pool.run(lambda: None)  # the thread is free again
    assert words.characters <= PIECE_CHARACTERS
