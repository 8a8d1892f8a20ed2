"""Every failure in OpenAI's envelope with its status, whatever the request holds."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

import mm_gateway
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelUnavailableError,
    OutOfMemoryError,
    RateLimitError,
    ShuttingDownError,
    UnsupportedParameterError,
    UpstreamError,
)
from tests.support.scripted_backend import ScriptedBackend, app_over

CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]


@pytest.mark.parametrize(
    ("error", "status", "type_", "param", "code", "header"),
    [
        (InvalidRequestError("x", param="stop"), 400, "invalid_request_error", "stop", None, None),
        (UnsupportedParameterError("x", param="tools"), 400, "invalid_request_error", "tools", "unsupported_parameter", None),
        (ContextLengthExceededError(8, 9), 400, "invalid_request_error", "messages", "context_length_exceeded", None),
        (AuthenticationError("x"), 401, "invalid_request_error", None, "invalid_api_key", None),
        (ModelNotFoundError("m"), 404, "invalid_request_error", "model", "model_not_found", None),
        (RateLimitError("x", retry_after_s=2.5), 429, "rate_limit_error", None, "rate_limit_exceeded", ("retry-after", "3")),
        (ModelUnavailableError("x", retryable=True, retry_after_s=7), 503, "server_error", None, "model_overloaded", ("retry-after", "7")),
        (ModelLoadError("x"), 503, "server_error", None, "model_load_failed", ("x-should-retry", "false")),
        (OutOfMemoryError("x"), 503, "server_error", None, "model_overloaded", ("retry-after", "1")),
        (ShuttingDownError("x"), 503, "server_error", None, None, ("retry-after", "1")),
        (UpstreamError("x", status=418, type="t", param="p", code="c"), 418, "t", "p", "c", None),
        (EngineError("x"), 500, "server_error", None, None, None),
        (ConfigurationError("x"), 500, "server_error", None, None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_every_error_has_its_status_and_fields(
    error: Exception, status: int, type_: str, param: str | None, code: str | None, header: tuple[str, str] | None
) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([error]))) as client:
        reply = await client.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == status
    assert reply.json()["error"] == {"message": str(error), "type": type_, "param": param, "code": code}
    if header is not None:
        assert reply.headers[header[0]] == header[1]


async def test_an_unexpected_exception_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([KeyError("/secret/path")]))) as client:
        reply = await client.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json()["error"]["type"] == "server_error"
    assert "/secret/path" in caplog.text  # for the operator


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models/nothing/at/all", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_errors_of_routing_carry_envelope_and_headers(method: str, path: str, status: int) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"].startswith("req_")
    assert int(reply.headers["openai-processing-ms"]) >= 0


async def test_another_media_type_is_415() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post("/v1/chat/completions", content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 415


async def test_a_body_beyond_the_limit_is_413_and_one_within_it_is_served() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), max_body_bytes=2000)) as client:
        large = {**CHAT, "user": "x" * 3000}
        assert (await client.post("/v1/chat/completions", json=large)).status_code == 413
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", None),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "unsupported_value"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "b"}]}, "messages[0].tool_call_id", None),
        ({"nonsense": 1}, "nonsense", None),
        ({"messages": [{"role": "user", "content": "a", "colour": "b"}]}, "messages[0].colour", None),
        ({"temperature": 2.5}, "temperature", None),
        ({"temperature": "hot"}, "temperature", None),
        ({"top_p": 0}, "top_p", None),
        ({"n": 0}, "n", None),
        ({"n": 1000}, "n", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"max_completion_tokens": 0}, "max_completion_tokens", None),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", None),
        ({"stop": ["a"] * 65}, "stop", None),
        ({"stop": ""}, "stop", None),
        ({"logit_bias": {"a": 1}}, "logit_bias", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"keep_alive": "soon"}, "keep_alive", None),
        ({"tools": [{"type": "function"}]}, "tools[0].function", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None),
        ({"response_format": {"type": "xml"}}, "response_format.type", None),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex", None),
        ({"guided_choice": []}, "guided_choice", None),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", None),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning.effort", None),
        ({"thinking_budget": 5, "thinking_token_budget": 6}, "thinking_token_budget", None),
        ({"thinking_budget": -1}, "thinking_budget", None),
        ({"messages": [{"role": "user", "content": "Hi", "reasoning_content": "Hm"}]}, "messages[0].reasoning_content", None),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(change: dict[str, Any], param: str, code: str | None) -> None:
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/chat/completions", json={**CHAT, **change})
    assert reply.status_code == 400
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)
    assert backend.requests == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"prompt": ["a"] * 2049}, "prompt"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_field_of_a_completion_is_named(change: dict[str, Any], param: str) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post("/v1/completions", json={"model": "scripted", "prompt": "a", **change})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_fields_without_effect_are_accepted_and_null_is_absence() -> None:
    body = CHAT | {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "tool_choice": "auto", "seed": None}
    body |= {"stop": None, "temperature": None, "n": None, "logit_bias": None, "tools": None, "response_format": {"type": "text"}}
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert backend.requests[0].config.temperature is None
    assert backend.requests[0].metadata == {"a": "b"}


async def test_an_error_stays_small_however_large_the_request() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        for body in ({**CHAT, "x" * 100_000: 1}, {**CHAT, "model": "m" * 100_000}, {**CHAT, "keep_alive": "k" * 100_000}):
            reply = await client.post("/v1/chat/completions", json=body)
            assert 400 <= reply.status_code < 500
            assert len(reply.content) < 4000


async def test_keys_open_and_health_needs_none() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), api_keys=("one", "two"))) as client:
        for headers, status in [
            ({}, 401),
            ({"authorization": "Bearer wrong"}, 401),
            ({"authorization": "Basic one"}, 401),
            ({"authorization": "Bearer two"}, 200),
        ]:
            reply = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert reply.status_code == status
            assert (await client.get("/v1/models", headers=headers)).status_code == status
        assert reply.headers["x-request-id"]
        assert (await client.get("/health")).json()["status"] == "ok"
        assert (await client.get("/version")).json() == {"version": mm_gateway.__version__}
        ping = await client.get("/ping")
        assert (ping.status_code, ping.content) == (200, b"")


async def test_models_are_shown_as_they_are() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER, "org/a-model"))) as client:
        listed = (await client.get("/v1/models")).json()
        assert listed["object"] == "list"
        assert (await client.get("/v1/models/org/a-model")).json() == listed["data"][0]
        assert [(card["id"], card["root"]) for card in listed["data"]] == [("org/a-model", "org/a-model"), ("an-alias", "org/a-model")]
        assert (await client.get("/v1/models/an-alias")).json()["id"] == "org/a-model"
    assert {"id", "object", "created", "owned_by"} <= set(listed["data"][0])


async def test_while_draining_new_requests_are_refused_and_health_says_so() -> None:
    app = app_over(ScriptedBackend(ANSWER))
    async with AsyncTestClient(app) as client:
        app.state.draining = True
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/ping")).status_code == 503
