"""The key of a conversation's beginning, and how large a request is taken to be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, ForwardedBody, GenerationConfig, GenerationRequest, Message
from mm_gateway.protocol.forwarded import forwarded_fields


def wanted(*turns: tuple[str, str]) -> Wanted:
    messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
    return Wanted(GenerationRequest(request_id="r", model="all", input=ChatInput(messages)), 0)


def forwarded(endpoint: str = "chat/completions", **fields: object) -> Wanted:
    return Wanted(ForwardedBody(model="all", endpoint=endpoint, fields=forwarded_fields(json.dumps(fields).encode())), 0)  # type: ignore[arg-type]


BEGUN = (("system", "Be brief."), ("user", "One"))
LATER = (*BEGUN, ("assistant", "Two"), ("user", "Three"))


def test_all_turns_of_a_conversation_have_its_key_and_others_another() -> None:
    assert wanted(*BEGUN).key == wanted(*LATER).key
    assert wanted(*BEGUN).key != wanted(BEGUN[0], ("user", "Another")).key
    assert wanted(*BEGUN).key != wanted(("system", "Be long."), BEGUN[1]).key


def test_so_have_those_of_bodies_that_are_forwarded() -> None:
    def body(*turns: tuple[str, str], **more: Any) -> Wanted:
        return forwarded(messages=[{"role": role, "content": text} for role, text in turns], **more)

    assert body(*BEGUN).key == body(*LATER).key != body(BEGUN[0], ("user", "Another")).key
    assert body(*BEGUN, tools=[{"a": 1}]).key != body(*BEGUN).key
    assert forwarded("completions", prompt="Once").key != forwarded("completions", prompt="Twice").key


@pytest.mark.parametrize("messages", ["no list", 3, None, [], [3], [{"role": 5}], {"role": "user"}])
def test_what_is_no_conversation_harms_nobody(messages: object) -> None:
    assert isinstance(forwarded(messages=messages).key, int | None)


def test_embeddings_have_no_key() -> None:
    assert forwarded("embeddings", input="Hi").key is None
    assert Wanted(GenerationRequest(request_id="r", model="all", input=EmbeddingInput(("Hi",))), 0).key is None


def test_sizes_are_on_the_high_side() -> None:
    config = GenerationConfig(max_new_tokens=100)
    request = GenerationRequest(request_id="r", model="all", input=CompletionInput(("世界" * 30, "a" * 60)), config=config)
    assert Wanted(request, 0).tokens == 60 + 100
    ids = GenerationRequest(request_id="r", model="all", input=CompletionInput((tuple(range(50)),)), config=config)
    assert Wanted(ids, 0).tokens == 150
    assert Wanted(ids, 0).fits(150)
    assert not Wanted(ids, 0).fits(149)
    body = ForwardedBody(model="all", endpoint="completions", fields={"prompt": msgspec.Raw(b'"abcdefg"')}, output_tokens=20, choices=2)
    assert Wanted(body, 0).tokens == 3 + 10
