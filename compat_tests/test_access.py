"""Keys, limits and back-pressure as openai-python sees them, over a gateway of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello!"}]
KEYS = [
    {"key": "key-of-alice", "name": "alice", "requests_per_minute": 3},
    {"key": "key-of-bob", "name": "bob", "tokens_per_minute": 600},
    {"key": "key-of-carol", "name": "carol", "requests_per_minute": 120, "models": ["mock"]},
    {"key": "key-of-dave", "name": "dave"},
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    (folder / "keys.yaml").write_text(json.dumps(KEYS))
    models: dict[str, dict[str, object]] = {name: {"model_name": "mock", "backend": "mock"} for name in ("mock", "other")}
    started = start_gateway(
        folder,
        models,
        free_port(),
        MM_GATEWAY_SERVER_API_KEYS_FILE="keys.yaml",
        MM_GATEWAY_LIMITS_MAX_QUEUED_REQUESTS="2",
        MM_GATEWAY_SERVER_CORS_ORIGINS="https://app.example",
        XDG_DATA_HOME=str(folder / "data"),
    )
    yield started
    stop_gateway(started)
    assert "key-of" not in started.log.read_text()


def client_of(gateway: Gateway, name: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=f"key-of-{name}", **{"max_retries": 0, "timeout": 60, **options})


def test_a_wrong_key_is_an_authentication_error(guarded: Gateway) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client_of(guarded, "mallory").models.list()
    assert caught.value.code == "invalid_api_key"


def test_raw_responses_show_the_limits_and_the_fourth_request_is_refused(guarded: Gateway) -> None:
    alice = client_of(guarded, "alice")
    for left in ("2", "1", "0"):
        raw = alice.chat.completions.with_raw_response.create(model="mock", messages=HELLO, max_tokens=1)
        assert raw.headers["x-ratelimit-limit-requests"] == "3"
        assert raw.headers["x-ratelimit-remaining-requests"] == left
        assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in raw.headers
        assert raw.parse().choices[0].message.content
    with pytest.raises(openai.RateLimitError) as caught:
        alice.chat.completions.create(model="mock", messages=HELLO)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (429, "rate_limit_exceeded", "requests")
    assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 20_000
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.response.headers["x-request-id"] == caught.value.request_id


def test_tokens_are_counted_and_the_client_waits_as_long_as_it_is_told(guarded: Gateway) -> None:
    bob = client_of(guarded, "bob", max_retries=1)
    long = "!mock tokens=500"
    stream = bob.chat.completions.create(
        model="mock",
        messages=[{"role": "user", "content": long}],
        max_tokens=500,
        extra_body={"ignore_eos": True},
        stream=True,
        stream_options={"include_usage": True},
    )
    assert int(stream.response.headers["x-ratelimit-remaining-tokens"]) < 100
    assert next(chunk.usage for chunk in stream if chunk.usage).completion_tokens == 500
    started = time.monotonic()
    raw = bob.chat.completions.with_raw_response.create(model="mock", messages=HELLO, max_tokens=100)
    waited_s = time.monotonic() - started
    assert raw.retries_taken == 1
    assert waited_s > 0.3  # ten tokens come back a second
    assert int(raw.headers["x-ratelimit-limit-tokens"]) == 600
    with pytest.raises(openai.RateLimitError) as caught:
        bob.chat.completions.create(model="mock", messages=HELLO, max_tokens=5000)
    assert caught.value.type == "tokens"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_key_sees_and_uses_its_models_alone(guarded: Gateway) -> None:
    carol = client_of(guarded, "carol")
    assert [model.id for model in carol.models.list()] == ["mock"]
    with pytest.raises(openai.NotFoundError) as caught:
        carol.chat.completions.create(model="other", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_beyond_the_queue_requests_are_refused_and_retries_get_through(guarded: Gateway) -> None:
    dave = client_of(guarded, "dave")
    waiting: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "!mock load=1 tokens=1"}]

    def ask(client: openai.OpenAI) -> str:
        try:
            return str(client.chat.completions.create(model="mock", messages=waiting).choices[0].finish_reason)
        except openai.RateLimitError as error:
            assert int(error.response.headers["retry-after"]) >= 1
            assert error.type == "rate_limit_error"
            return "refused"

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(ask, [dave] * 6))
    assert results.count("stop") >= 2 and results.count("refused") >= 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [client_of(guarded, "dave", max_retries=20)] * 4)) == ["stop"] * 4


def test_browsers_may_read_the_limits(guarded: Gateway) -> None:
    carol = client_of(guarded, "carol", default_headers={"origin": "https://app.example"})
    raw = carol.models.with_raw_response.list()
    assert raw.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-ratelimit-remaining-requests" in raw.headers["access-control-expose-headers"]
    assert raw.headers["x-ratelimit-remaining-requests"]
