"""Embeddings through the official client: its default base64, floats, batches, async, against mock, remote and real models."""

from __future__ import annotations

import asyncio
import math

import httpx
import openai
import pytest

from compat_tests.support.gateways import Gateway

EVERY_KIND = ["mock", "hub/remote", "gpt2", "llama"]
TEXTS = ["Once upon a time", "Hello! How are you?", "你好，世界。"]


@pytest.mark.parametrize("model", EVERY_KIND)
def test_a_batch_equals_its_texts_one_by_one_in_every_encoding(client: openai.OpenAI, model: str) -> None:
    batch = client.embeddings.create(model=model, input=TEXTS)  # the client asks for base64 and decodes it
    floats = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    assert [item.index for item in batch.data] == [0, 1, 2]
    assert batch.usage.prompt_tokens == batch.usage.total_tokens > 0
    for position, text in enumerate(TEXTS):
        alone = client.embeddings.create(model=model, input=text).data[0].embedding
        assert math.hypot(*alone) == pytest.approx(1, abs=1e-5)
        assert batch.data[position].embedding == pytest.approx(alone, abs=1e-5)
        assert floats.data[position].embedding == pytest.approx(alone, abs=1e-5)


def test_vectors_equal_the_pooled_states_of_transformers(client: openai.OpenAI, gateway: Gateway) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(gateway.checkpoints["llama"]) for kind in (AutoModel, AutoTokenizer))
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
    found = client.embeddings.create(model="llama", input=TEXTS)
    for state, item in zip(states, found.data, strict=True):
        assert item.embedding == pytest.approx(torch.nn.functional.normalize(state, dim=0).tolist(), abs=1e-5)


async def test_many_at_once_beside_a_stream(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        stream = await client.completions.create(model="gpt2", prompt="Once", max_tokens=60, stream=True, extra_body={"ignore_eos": True})
        replies = await asyncio.gather(*(client.embeddings.create(model="gpt2", input=[text] * 40) for text in TEXTS * 3))
        assert len([chunk async for chunk in stream]) > 20
    assert all(len(reply.data) == 40 for reply in replies)
    assert replies[0].data[0].embedding == pytest.approx(replies[3].data[39].embedding, abs=1e-5)


def test_what_a_model_cannot_do_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="matryoshka"):
        client.embeddings.create(model="gpt2", input="a", dimensions=8)
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens"):
        client.embeddings.create(model="gpt2", input=["a", "word " * 2000])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nope", input="a")


@pytest.mark.parametrize("model", EVERY_KIND)
def test_tokens_come_back_as_their_text(gateway: Gateway, model: str) -> None:
    with httpx.Client(base_url=gateway.address, timeout=60) as client:
        tokens = client.post("/tokenize", json={"model": model, "prompt": TEXTS[1], "add_special_tokens": False}).json()["tokens"]
        assert client.post("/detokenize", json={"model": model, "tokens": tokens}).json() == {"prompt": TEXTS[1]}
        chat = {"model": model, "messages": [{"role": "user", "content": TEXTS[0]}]}
        count = client.post("/tokenize", json=chat).json()["count"]
        usage = client.post("/v1/chat/completions", json={**chat, "max_tokens": 1}).json()["usage"]
    assert count == usage["prompt_tokens"]
