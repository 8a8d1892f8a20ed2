"""Every field that OpenAI's API has is served, harmless or refused by its name, and so says the API's description."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import ResponseIncludable, response_create_params
from openai.types.shared_params import Reasoning

from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from mm_gateway.protocol.policy import policies, refuse_unserved
from mm_gateway.protocol.response_request import Includable, ReasoningConfig, ResponseRequest

THEIRS: list[tuple[type, type[msgspec.Struct]]] = [
    (chat_create_params.CompletionCreateParamsStreaming, ChatCompletionRequest),
    (completion_create_params.CompletionCreateParamsStreaming, CompletionRequest),
    (embedding_create_params.EmbeddingCreateParams, EmbeddingRequest),
    (response_create_params.ResponseCreateParamsStreaming, ResponseRequest),
    (Reasoning, ReasoningConfig),
]


@pytest.mark.parametrize(("theirs", "ours"), THEIRS, ids=lambda kind: kind.__name__)
def test_no_field_of_the_installed_openai_package_is_unknown(theirs: type, ours: type[msgspec.Struct]) -> None:
    assert set(get_type_hints(theirs)) - set(policies(ours)) == set()


def test_no_entry_of_include_is_unknown() -> None:
    assert set(get_args(ResponseIncludable)) <= set(get_args(Includable))


@pytest.mark.parametrize(
    ("name", "policy"),
    [("temperature", "served"), ("user", "harmless"), ("prompt_cache_options", "harmless"), ("moderation", "not served")],
)
def test_a_field_says_its_policy(name: str, policy: str) -> None:
    assert policies(ChatCompletionRequest)[name] == policies(ResponseRequest)[name] == policy


def test_what_codex_says_of_itself_is_harmless() -> None:
    assert policies(ResponseRequest)["client_metadata"] == "harmless"


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE: dict[str, Any] = {"model": "m", "input": "hi"}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}


@pytest.mark.parametrize(
    ("kind", "body", "fields", "param"),
    [
        (ChatCompletionRequest, CHAT, {"functions": []}, "functions"),
        (ChatCompletionRequest, CHAT, {"modalities": []}, "modalities"),
        (ChatCompletionRequest, CHAT, {"moderation": {}}, "moderation"),
        (ResponseRequest, RESPONSE, {"prompt": {}}, "prompt"),
        (ResponseRequest, RESPONSE, {"reasoning": {"mode": ""}}, "reasoning.mode"),
    ],
)
def test_what_is_not_served_is_refused_by_name_however_empty(
    kind: type[msgspec.Struct], body: dict[str, Any], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UnsupportedParameterError) as refused:
        refuse_unserved(msgspec.convert(body | fields, kind))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        (ChatCompletionRequest, CHAT, {"web_search_options": None, "moderation": None, "audio": None}),
        (ChatCompletionRequest, CHAT, {"function_call": "none", "modalities": ["text"], "reasoning_effort": "none", "verbosity": "medium"}),
        (ChatCompletionRequest, CHAT, {"prompt_cache_options": {"mode": "auto"}}),
        (CompletionRequest, COMPLETION, {"suffix": ""}),
        (ResponseRequest, RESPONSE, {"background": False, "reasoning": {"effort": "none"}, "text": {"verbosity": "medium"}}),
        (ResponseRequest, RESPONSE, {"prompt_cache_options": {"mode": "auto"}, "reasoning": {}}),
    ],
)
def test_values_that_ask_for_nothing_are_accepted(kind: type[msgspec.Struct], body: dict[str, Any], fields: dict[str, Any]) -> None:
    refuse_unserved(msgspec.convert(body | fields, kind))
