"""What the official openai SDK can ask of a text: limits, biases, penalties, log-probabilities, prompts; its helpers and raw responses."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from compat_tests.support.gateways import Gateway
from compat_tests.test_openai import Answer

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
REAL = ["gpt2", "llama", "qwen2"]


def token_id(gateway: Gateway, family: str, text: str) -> int:
    return json.loads((gateway.checkpoints[family] / "tokenizer.json").read_text())["model"]["vocab"][text]


@pytest.mark.parametrize("model", ["mock", "llama"])
def test_the_stream_helper_gives_events_and_the_whole(client: openai.OpenAI, model: str) -> None:
    options: Any = {"model": model, "messages": HELLO, "max_tokens": 30, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    text = client.chat.completions.create(**options).choices[0].message.content or ""
    options["stop"] = text[9:12]  # the helper takes a reply that its length cut for an error
    with client.chat.completions.stream(**options) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    whole = client.chat.completions.create(**options)
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    kinds = {event.type for event in events}
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta", "logprobs.content.done"} <= kinds
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == whole.choices[0].message.content
    (done,) = [event for event in events if event.type == "logprobs.content.done"]
    assert [entry.token for entry in done.content] == [entry.token for entry in whole.choices[0].logprobs.content]


def test_the_stream_helper_parses_what_follows_a_schema(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="qwen2", messages=HELLO, response_format=Answer, max_tokens=60) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Answer)
    assert len(partial) > 5


async def test_async_parse_and_stream_agree(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none") as client:
        options: Any = {"model": "llama", "messages": HELLO, "response_format": Answer, "max_tokens": 60, "seed": 4}
        whole = (await client.chat.completions.parse(**options)).choices[0].message.parsed
        async with client.chat.completions.stream(**options) as stream:
            final = (await stream.get_final_completion()).choices[0].message.parsed
    assert whole == final and isinstance(whole, Answer)


def test_raw_and_streaming_raw_responses(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
    assert raw.headers["x-request-id"].startswith("req_") and raw.request_id == raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.http_response.headers["content-type"] == "application/json" and raw.retries_taken == 0
    text = raw.parse().choices[0].message.content
    streamed = client.chat.completions.with_raw_response.create(model="mock", messages=HELLO, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed.parse()) == text
    with client.chat.completions.with_streaming_response.create(model="mock", messages=HELLO) as response:
        assert response.parse().choices[0].message.content == text
    with client.chat.completions.with_streaming_response.create(model="mock", messages=HELLO, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"


async def test_async_raw_responses(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none") as client:
        raw = await client.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
        assert raw.parse().choices
        async with client.chat.completions.with_streaming_response.create(model="mock", messages=HELLO, stream=True) as response:
            assert [line async for line in response.iter_lines() if line][-1] == "data: [DONE]"


@pytest.mark.parametrize("family", REAL)
def test_a_bias_of_100_decides_and_one_of_minus_100_bans(client: openai.OpenAI, gateway: Gateway, family: str) -> None:
    wanted = token_id(gateway, family, "z")
    options: Any = {"model": family, "prompt": "Once", "max_tokens": 5, "temperature": 0}
    assert client.completions.create(**options, logit_bias={str(wanted): 100}).choices[0].text == "zzzzz"
    free = client.completions.create(**options, logprobs=1).choices[0]
    first: Any = free.logprobs and free.logprobs.tokens and free.logprobs.tokens[0]
    banned = client.completions.create(
        **options, logprobs=1, logit_bias={str(index): -100 for index in range(320) if index != wanted}
    ).choices[0]
    assert first != "z" and banned.text == "zzzzz"


def test_penalties_keep_a_greedy_text_from_repeating(client: openai.OpenAI, gateway: Gateway) -> None:
    options: Any = {"model": "llama", "messages": HELLO, "max_tokens": 6, "temperature": 0}
    bias = {str(token_id(gateway, "llama", letter)): 90 for letter in "xyz"}
    repeated = client.chat.completions.create(**options, logit_bias=bias).choices[0].message.content
    assert repeated is not None and len(set(repeated)) < 3
    penalized = client.chat.completions.create(**options, logit_bias=bias, frequency_penalty=2, presence_penalty=2).choices[0]
    assert penalized.message.content and len(set(penalized.message.content)) > len(set(repeated))


@pytest.mark.parametrize("model", ["mock", "hub/remote", "gpt2"])
def test_both_names_of_the_limit_cut_a_text(client: openai.OpenAI, model: str) -> None:
    old = client.chat.completions.create(model=model, messages=HELLO, max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
    new = client.chat.completions.create(model=model, messages=HELLO, max_completion_tokens=5, temperature=0)
    assert old.choices[0].finish_reason == "length" and old.usage and old.usage.completion_tokens == 5
    assert old.choices[0].message.content == new.choices[0].message.content


def test_log_probabilities_of_completions_line_up_whole_and_streamed(client: openai.OpenAI) -> None:
    options: Any = {"model": "llama", "prompt": "Hello! How", "max_tokens": 8, "temperature": 0, "logprobs": 3}
    whole: Any = client.completions.create(**options).choices[0].logprobs
    chunks = [chunk.choices[0].logprobs for chunk in client.completions.create(**options, stream=True)]
    parts: list[Any] = [logprobs for logprobs in chunks if logprobs is not None]
    for field in ("tokens", "token_logprobs", "text_offset"):
        assert [value for part in parts for value in getattr(part, field)] == getattr(whole, field)
    assert whole.text_offset == sorted(whole.text_offset) and whole.text_offset[0] == 0
    for token, logprob, top in zip(whole.tokens, whole.token_logprobs, whole.top_logprobs, strict=True):
        assert len(top) == 3 and top[token] == pytest.approx(logprob) == max(top.values())


def test_chat_log_probabilities_without_alternatives_and_up_to_20(client: openai.OpenAI) -> None:
    options: Any = {"model": "qwen2", "messages": HELLO, "max_tokens": 4, "temperature": 0, "logprobs": True}
    bare: Any = client.chat.completions.create(**options).choices[0].logprobs
    many: Any = client.chat.completions.create(**options, top_logprobs=20).choices[0].logprobs
    assert [entry.top_logprobs for entry in bare.content] == [[]] * 4 and bare.refusal is None
    for entry in many.content:
        values = [top.logprob for top in entry.top_logprobs]
        assert len(values) == 20 and values == sorted(values, reverse=True)


def test_token_arrays_and_batches_equal_their_texts(client: openai.OpenAI, gateway: Gateway) -> None:
    options: Any = {"model": "gpt2", "max_tokens": 6, "temperature": 0}
    letters = ["z", "y", "x"]
    ids = [[token_id(gateway, "gpt2", letter)] for letter in letters]
    batch = [choice.text for choice in client.completions.create(prompt=letters, **options).choices]
    assert [choice.text for choice in client.completions.create(prompt=ids, **options).choices] == batch
    assert [client.completions.create(prompt=each, **options).choices[0].text for each in ids] == batch
    streamed = ["", "", ""]
    for chunk in client.completions.create(prompt=letters, stream=True, **options):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == batch


def test_best_of_keeps_the_most_probable(client: openai.OpenAI) -> None:
    options: Any = {"model": "llama", "prompt": "Once", "max_tokens": 6, "seed": 3, "logprobs": 0, "extra_body": {"ignore_eos": True}}
    several = client.completions.create(**options, n=4).choices
    (best,) = client.completions.create(**options, n=1, best_of=4).choices

    def score(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs)

    assert best.text == max(several, key=score).text


def test_echo_alone_scores_without_generating(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="gpt2", prompt=["Hello", "Once upon"], max_tokens=0, echo=True, logprobs=1)
    assert [choice.text for choice in reply.choices] == ["Hello", "Once upon"]
    assert reply.usage and reply.usage.completion_tokens == 0
    streamed = client.completions.create(model="gpt2", prompt="Once upon", max_tokens=3, temperature=0, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed).startswith("Once upon")


@pytest.mark.parametrize("model", ["mock", "gpt2"])
def test_stops_work_in_both_shapes_and_streams(client: openai.OpenAI, model: str) -> None:
    free = client.completions.create(model=model, prompt="Once", max_tokens=30, temperature=0).choices[0].text
    stop = [free[9:12], free[14:16]]
    cut = min(free.index(each) for each in stop)
    for options in ({}, {"stream": True}):
        reply: Any = client.completions.create(model=model, prompt="Once", max_tokens=30, temperature=0, stop=stop, **options)  # type: ignore[call-overload]
        choices = [chunk.choices[0] for chunk in reply] if options else [reply.choices[0]]
        assert "".join(choice.text for choice in choices) == free[:cut]
        assert choices[-1].finish_reason == "stop"


def test_fields_without_effect_are_accepted(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="mock",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
        ],
        user="ann",
        store=False,
        metadata={"case": "1"},
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="k",
        modalities=["text"],
    )
    assert reply.choices[0].message.content
    assert reply.choices[0].message.refusal is None and reply.system_fingerprint
