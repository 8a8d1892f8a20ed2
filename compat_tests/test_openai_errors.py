"""Every exception of the official openai SDK that a server can cause, its retries and its timeouts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]

# ContentFilterFinishReasonError and OAuthError have no cause here: nothing is filtered, and keys are the only credentials.
# 409 and 422 are never the gateway's own answer; a server behind it may give them, which the mock plays.
ERRORS = [
    ("400", openai.BadRequestError, 400, "invalid_request_error"),
    ("401", openai.AuthenticationError, 401, "invalid_request_error"),
    ("403", openai.PermissionDeniedError, 403, "invalid_request_error"),
    ("404", openai.NotFoundError, 404, "invalid_request_error"),
    ("409", openai.ConflictError, 409, "invalid_request_error"),
    ("422", openai.UnprocessableEntityError, 422, "invalid_request_error"),
    ("429", openai.RateLimitError, 429, "rate_limit_error"),
    ("500", openai.InternalServerError, 500, "server_error"),
    ("503", openai.InternalServerError, 503, "server_error"),
    ("context", openai.BadRequestError, 400, "invalid_request_error"),
]


def told(directive: str) -> list[Any]:
    return [{"role": "user", "content": f"!mock {directive}"}]


class Counted(NamedTuple):
    """A client, and the status of every reply that it got, those that it retried included."""

    client: openai.OpenAI
    statuses: list[int]


@pytest.fixture
def counted(gateway: Gateway) -> Iterator[Counted]:
    statuses: list[int] = []
    with (
        httpx2.Client(event_hooks={"response": [lambda response: statuses.append(response.status_code)]}) as http,
        openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=1, http_client=http) as client,
    ):
        yield Counted(client, statuses)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("told_error", "error", "status", "type_"), ERRORS)
def test_errors_arrive_as_their_exception(
    client: openai.OpenAI, told_error: str, error: type[openai.APIStatusError], status: int, type_: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="mock", messages=told(f"error={told_error}"), stream=stream)
    assert type(caught.value) is error
    assert (caught.value.status_code, caught.value.type) == (status, type_)
    assert isinstance(caught.value.body, dict) and {"message", "type", "param", "code"} == set(caught.value.body)
    assert caught.value.request_id and caught.value.request_id.startswith("req_")


@pytest.mark.parametrize("status", ["400", "404", "409", "422", "429", "500", "503"])
def test_errors_of_a_server_behind_the_gateway_keep_their_class(client: openai.OpenAI, status: str) -> None:
    expected = next(error for name, error, _, _ in ERRORS if name == status)
    with pytest.raises(expected):
        client.chat.completions.create(model="hub/remote", messages=told(f"error={status}"))


async def test_async_clients_raise_the_same(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0) as client:
        for name, error, status, _ in ERRORS:
            with pytest.raises(error) as caught:
                await client.completions.create(model="mock", prompt=f"!mock error={name}")
            assert caught.value.status_code == status


def test_an_error_in_mid_stream_is_raised_after_the_text(client: openai.OpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="mock", messages=told("error=500 after=3"), stream=True):
            text += chunk.choices[0].delta.content or ""
    assert len(text.split()) == 3
    assert caught.value.type == "server_error"


@pytest.mark.parametrize(("name", "requests"), [("409", 2), ("500", 2), ("400", 1), ("404", 1), ("422", 1)])
def test_what_can_be_retried_is_retried_once_where_one_retry_is_set(counted: Counted, name: str, requests: int) -> None:
    with pytest.raises(openai.APIStatusError):
        counted.client.chat.completions.create(model="mock", messages=told(f"error={name}"))
    assert counted.statuses == [int(name)] * requests


@pytest.mark.parametrize("name", ["429", "503"])
def test_a_retry_waits_as_long_as_retry_after_says(counted: Counted, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(openai.APIStatusError) as caught:
        counted.client.chat.completions.create(model="mock", messages=told(f"error={name}"))
    assert counted.statuses == [int(name)] * 2
    assert caught.value.response.headers["retry-after"] == "1"
    # The SDK's own first pause is half a second at most.
    assert time.monotonic() - began >= 1


def test_a_model_that_cannot_be_loaded_is_not_tried_again(counted: Counted) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        counted.client.chat.completions.create(model="missing", messages=HELLO)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert counted.statuses == [503]


def test_a_client_that_retries_outlasts_a_restart(tmp_path: Path) -> None:
    port = free_port()
    started: list[Gateway] = []
    models: dict[str, Any] = {"mock": {"model_name": "mock", "backend": "mock"}}
    starting = threading.Thread(target=lambda: started.append(start_gateway(tmp_path, models, port)))
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=20) as client:
        with pytest.raises(openai.APIConnectionError):
            client.with_options(max_retries=0).chat.completions.create(model="mock", messages=HELLO)
        starting.start()
        raw = client.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
    starting.join()
    stop_gateway(started[0])
    assert raw.retries_taken > 0
    assert raw.parse().choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_of_the_client_leaves_the_server_well(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="mock", messages=told("error=hang"), stream=stream)
    assert client.chat.completions.create(model="mock", messages=HELLO).choices


async def test_an_async_timeout_too(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="mock", messages=told("error=hang"))


def test_heartbeats_keep_a_slow_stream_within_the_clients_timeout(client: openai.OpenAI) -> None:
    stream = client.with_options(timeout=1.5).chat.completions.create(model="mock", messages=told("load=2.5 tokens=2"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


class Long(pydantic.BaseModel):
    """More than a few tokens."""

    text: str = pydantic.Field(min_length=60)


def test_a_structured_reply_that_was_cut_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError) as caught:
        client.chat.completions.parse(model="llama", messages=HELLO, response_format=Long, max_tokens=10)
    assert caught.value.completion.choices[0].finish_reason == "length"


def test_a_reply_of_another_shape_is_told_apart(gateway: Gateway) -> None:
    with (
        openai.OpenAI(base_url=gateway.address, api_key="none", _strict_response_validation=True) as client,
        pytest.raises(openai.APIResponseValidationError),
    ):
        client.get("/health", cast_to=ChatCompletion)


def test_paths_that_are_not_served_are_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Unknown request URL"):
        client.images.generate(prompt="a cat", model="mock")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("nope")


def test_the_admin_endpoints_deny_permission_where_they_are_off(gateway: Gateway) -> None:
    with (
        openai.OpenAI(base_url=gateway.address, api_key="none", max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="MM_GATEWAY_ADMIN_KEYS"),
    ):
        client.post("/admin/models/gpt2/load", cast_to=object)


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        ("nope", openai.NotFoundError, "does not exist"),
        ("missing", openai.InternalServerError, "does not exist"),
        ("gone", openai.InternalServerError, "cannot be reached"),
    ],
)
def test_models_that_cannot_answer_say_why(client: openai.OpenAI, model: str, error: type[openai.APIStatusError], says: str) -> None:
    with pytest.raises(error, match=says):
        client.chat.completions.create(model=model, messages=HELLO)


def test_a_prompt_beyond_the_context_names_the_limit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens") as caught:
        client.chat.completions.create(model="gpt2", messages=[{"role": "user", "content": "word " * 4000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("field", "value"),
    [("suffix", "end"), ("nonsense", 1), ("temperature", 3.0), ("logprobs", 99), ("n", 0), ("best_of", 1000), ("stop", ["a"] * 65)],
)
def test_what_is_not_served_is_refused_by_name(client: openai.OpenAI, field: str, value: object) -> None:
    with pytest.raises(openai.BadRequestError, match=field) as caught:
        client.completions.create(model="gpt2", prompt="Hello", extra_body={field: value})
    assert caught.value.param == field
