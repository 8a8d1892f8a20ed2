"""`/v1/embeddings` over the mock and a real model: forms of input, encodings, errors by name, equal vectors whatever the way."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Embedding, EmbeddingInput, Usage
from mm_gateway.errors import InvalidRequestError
from tests.support.scripted_backend import ScriptedBackend, app_over

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
async def client(gpt2_checkpoint: Path) -> AsyncIterator[AsyncTestClient]:
    models = {
        "mock": ModelConfig(model_name="mock", backend="mock", max_context_length=50),
        "gpt2": ModelConfig(model_name="gpt2", path=str(gpt2_checkpoint), device="cpu", dtype="fp32"),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def vectors(client: AsyncTestClient, **body: Any) -> list[list[float]]:
    reply = await client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    assert [item["index"] for item in reply.json()["data"]] == list(range(len(reply.json()["data"])))
    return [item["embedding"] for item in reply.json()["data"]]


async def test_the_reply_has_the_shape_of_openai_in_the_order_of_the_input() -> None:
    backend = ScriptedBackend([Embedding.of(1, [0.0, 1.0]), Embedding.of(0, [1.0, 0.0]), Usage(5, 0)])
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/embeddings", json={"model": "scripted", "input": ["a", "b"], "user": "u", "keep_alive": "5m"})
    assert reply.json() == {
        "object": "list",
        "model": "scripted",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 0.0]},
            {"object": "embedding", "index": 1, "embedding": [0.0, 1.0]},
        ],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    assert backend.requests[0].input == EmbeddingInput(("a", "b"))
    assert (backend.requests[0].keep_alive, backend.requests[0].user) == (300.0, "u")


@pytest.mark.parametrize("model", ["mock", "gpt2"])
async def test_base64_holds_the_same_float32_numbers(client: AsyncTestClient, model: str) -> None:
    body = {"model": model, "input": ["Hello", "Once upon a time"]}
    plain = await vectors(client, **body)
    encoded: Any = await vectors(client, **body, encoding_format="base64")
    for numbers, text in zip(plain, encoded, strict=True):
        assert list(struct.unpack(f"<{len(numbers)}f", base64.b64decode(text))) == numbers
        assert math.hypot(*numbers) == pytest.approx(1)


async def test_texts_and_their_token_ids_give_the_same_vectors(client: AsyncTestClient) -> None:
    texts = ["Hello", "Once upon a time"]
    ids = [(await client.post("/tokenize", json={"model": "gpt2", "prompt": text})).json()["tokens"] for text in texts]
    expected = await vectors(client, model="gpt2", input=texts)
    assert await vectors(client, model="gpt2", input=ids) == expected
    single = await vectors(client, model="gpt2", input=ids[1])
    assert single[0] == pytest.approx(expected[1], abs=1e-5)


async def test_inputs_are_cut_as_vllm_cuts_them(client: AsyncTestClient) -> None:
    text = "Once upon a time there was a small model."
    ids = (await client.post("/tokenize", json={"model": "gpt2", "prompt": text})).json()["tokens"]
    assert len(ids) > 8
    for given in ([text], [ids]):
        for fields, read in (
            ({"truncate_prompt_tokens": 5}, ids[:5]),
            ({"truncate_prompt_tokens": 5, "truncation_side": "right"}, ids[:5]),
            ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, ids[-5:]),
            ({"truncate_prompt_tokens": -1, "add_special_tokens": False}, ids),
            ({"truncation_side": "left"}, ids),
        ):
            reply = (await client.post("/v1/embeddings", json={"model": "gpt2", "input": given, **fields})).json()
            assert reply["usage"]["prompt_tokens"] == len(read)
            assert [reply["data"][0]["embedding"]] == await vectors(client, model="gpt2", input=[read])
    for model in ("gpt2", "mock"):
        long = {"model": model, "input": ["word " * 400, "a"], "truncate_prompt_tokens": -1}
        limit = 50 if model == "mock" else 256
        assert (await client.post("/v1/embeddings", json=long)).json()["usage"]["prompt_tokens"] == limit + 1
    assert await vectors(client, model="mock", input="one two three", truncate_prompt_tokens=1, truncation_side="left") == await vectors(
        client, model="mock", input=" three"
    )


async def test_2048_inputs_are_embedded_at_once(client: AsyncTestClient) -> None:
    reply = await client.post("/v1/embeddings", json={"model": "gpt2", "input": [[1 + index % 200, 5] for index in range(2048)]})
    assert len(reply.json()["data"]) == 2048
    assert reply.json()["usage"] == {"prompt_tokens": 4096, "total_tokens": 4096}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 8}, "dimensions"),
        ({"dimensions": 10**6}, "dimensions"),
        ({"input": [-1]}, "input"),
        ({"input": "word " * 400}, "input"),
        ({"stream": True}, "stream"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 10**6}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -1, "input": ["a" * (300 << 10)]}, "input"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"padding": "max_length"}, "padding"),
        ({"use_activation": False}, "use_activation"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_field_is_named(client: AsyncTestClient, change: dict[str, Any], param: str) -> None:
    reply = await client.post("/v1/embeddings", json={"model": "gpt2", "input": "a", **change})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_an_input_beyond_the_context_says_so(client: AsyncTestClient) -> None:
    for model in ("mock", "gpt2"):
        reply = await client.post("/v1/embeddings", json={"model": model, "input": ["a", "word " * 400]})
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "context_length_exceeded"
        assert "maximum context length" in reply.json()["error"]["message"]


@pytest.mark.parametrize("entry", [[5] * 200, "Once upon a time there was a small model. " * 15], ids=["ids", "text"])
async def test_inputs_that_are_too_much_together_name_the_limit(client: AsyncTestClient, entry: list[int] | str) -> None:
    """Otherwise one request could keep the model busy for hours: 2,048 inputs of a whole context each."""
    reply = await client.post("/v1/embeddings", json={"model": "gpt2", "input": [entry] * 2048})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["type"]) == ("input", "invalid_request_error")
    assert "300000 tokens in all its inputs together" in error["message"]


async def test_a_model_without_embeddings_says_so() -> None:
    error = InvalidRequestError("This model does not support embeddings", param="model")
    async with AsyncTestClient(app_over(ScriptedBackend([error]))) as client:
        reply = await client.post("/v1/embeddings", json={"model": "scripted", "input": "a"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


async def test_mock_texts_that_share_words_are_near_each_other(client: AsyncTestClient) -> None:
    cat, kitten, bond = await vectors(client, model="mock", input=["the black cat sleeps", "the black cat eats", "municipal bond yields"])
    assert dot(cat, kitten) > 0.5 > abs(dot(cat, bond))
    assert len((await vectors(client, model="mock", input="a", dimensions=16))[0]) == 16


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
