"""The official openai SDK, sync and async, streaming and not, against mock, remote and real models."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from compat_tests.support.gateways import Gateway

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
EVERY_KIND = ["mock", "hub/remote", "gpt2", "llama"]


@pytest.mark.parametrize("model", EVERY_KIND)
def test_stream_and_whole_reply_hold_the_same_text(client: openai.OpenAI, model: str) -> None:
    options: Any = {"model": model, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_greedy_text_equals_generate_of_transformers(client: openai.OpenAI, gateway: Gateway, family: str) -> None:
    for prompt in ("Once upon a time", "Hello! How", "你好"):
        expected = generate(gateway.checkpoints[family], prompt, 24)
        completion = client.completions.create(model=family, prompt=prompt, max_tokens=24, temperature=0)
        assert completion.choices[0].text == expected


def generate(folder: Path, prompt: str, tokens: int) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("model", EVERY_KIND)
def test_several_choices_come_whole_and_interleaved(client: openai.OpenAI, model: str) -> None:
    options: Any = {"model": model, "messages": HELLO, "n": 3, "max_tokens": 6, "seed": 7}
    whole = client.chat.completions.create(**options)
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == {choice.index: choice.message.content for choice in whole.choices}
    assert len(set(streamed.values())) > 1


def test_a_seed_repeats_and_another_differs(client: openai.OpenAI) -> None:
    def text(seed: int) -> str | None:
        reply = client.chat.completions.create(model="llama", messages=HELLO, max_tokens=16, seed=seed, temperature=1.0)
        return reply.choices[0].message.content

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_stop_strings_end_the_text_and_stay_out_of_it(client: openai.OpenAI) -> None:
    free = client.completions.create(model="gpt2", prompt="Once", max_tokens=30, temperature=0).choices[0].text
    stop = free[8:11]
    reply = client.completions.create(model="gpt2", prompt="Once", max_tokens=30, temperature=0, stop=stop).choices[0]
    assert reply.finish_reason == "stop"
    assert reply.text == free[: free.index(stop)]


def test_completions_take_every_form_of_prompt(client: openai.OpenAI) -> None:
    texts = client.completions.create(model="gpt2", prompt=["Hello", "Once upon"], max_tokens=4, temperature=0, n=2)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    ids = client.completions.create(model="gpt2", prompt=[[5, 6, 7], [8, 9]], max_tokens=4, temperature=0)
    single = client.completions.create(model="gpt2", prompt=[8, 9], max_tokens=4, temperature=0)
    assert ids.choices[1].text == single.choices[0].text


def test_echo_scores_the_prompt(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="llama", prompt="Hello! How", max_tokens=3, temperature=0, echo=True, logprobs=2).choices[0]
    logprobs: Any = reply.logprobs
    assert reply.text.startswith("Hello! How")
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens).startswith("Hello! How")
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset)


def test_chat_logprobs_add_up(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="gpt2", messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3)
    content: Any = reply.choices[0].logprobs and reply.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace") == reply.choices[0].message.content
    for entry in content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)  # greedy takes the most probable


def test_models_are_listed_and_found_by_id_and_alias(client: openai.OpenAI) -> None:
    assert {"mock", "hub/remote", "gpt2"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("hub/remote").id == "hub/remote"
    assert client.models.retrieve("hf/tiny-gpt2").id == "gpt2"


def test_raw_responses_carry_the_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.parse().choices[0].message.content


def test_the_stream_helper_accumulates(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="mock", messages=HELLO) as stream:
        for _ in stream:
            continue
        final = stream.get_final_completion()
    whole = client.chat.completions.create(model="mock", messages=HELLO)
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_a_conversation_reuses_what_it_shares(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "system", "content": "You answer briefly. " * 8}, {"role": "user", "content": "Hello"}]
    first = client.chat.completions.create(model="gpt2", messages=messages, max_tokens=8, temperature=0)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model="gpt2", messages=messages, max_tokens=8, temperature=0)
    assert second.usage and second.usage.prompt_tokens_details
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 50


async def test_many_async_streams_run_at_once_and_alike(async_client: openai.AsyncOpenAI) -> None:
    async def text() -> str:
        stream = await async_client.chat.completions.create(model="llama", messages=HELLO, max_tokens=16, temperature=0, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert len(set(await asyncio.gather(*[text() for _ in range(32)]))) == 1


async def test_streams_that_are_left_do_not_disturb_others(async_client: openai.AsyncOpenAI) -> None:
    for _ in range(8):
        stream = await async_client.chat.completions.create(model="gpt2", messages=HELLO, max_tokens=400, stream=True)
        async for _chunk in stream:
            break
        await stream.close()
    reply = await async_client.chat.completions.create(model="gpt2", messages=HELLO, max_tokens=4)
    assert reply.choices[0].finish_reason in ("length", "stop")


def test_a_conversation_that_outgrew_the_context_goes_on_without_its_oldest_turns(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "system", "content": "Be brief."}]
    for index in range(150):
        turns += [{"role": "user", "content": f"Question {index}: how are you?"}, {"role": "assistant", "content": "Fine, thank you."}]
    turns.append({"role": "user", "content": "Hello"})
    reply = client.chat.completions.create(model="gpt2", messages=turns, max_tokens=8, temperature=0)
    assert reply.usage is not None and 1000 < reply.usage.prompt_tokens <= 2048 - 8


class Answer(pydantic.BaseModel):
    """What `.parse()` is asked for."""

    verdict: Literal["yes", "no"]
    score: int = pydantic.Field(ge=0, le=10)


def test_parse_gives_objects_even_from_random_weights(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model="llama", messages=HELLO, response_format=Answer, max_tokens=60, n=3)
    assert all(isinstance(choice.message.parsed, Answer) for choice in reply.choices)


def test_a_schema_streams_and_a_wrong_one_is_refused(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer", "minimum": 0, "maximum": 99}}}
    stream = client.chat.completions.create(model="gpt2", messages=HELLO, response_format=form, stream=True, max_tokens=20)
    assert 0 <= int("".join(chunk.choices[0].delta.content or "" for chunk in stream)) <= 99
    form["json_schema"]["schema"] = {"type": "nothing"}
    with pytest.raises(openai.BadRequestError, match="cannot be compiled") as caught:
        client.chat.completions.create(model="gpt2", messages=HELLO, response_format=form)
    assert caught.value.param == "response_format.json_schema.schema"
    reply = client.chat.completions.create(model="mock", messages=HELLO, response_format={"type": "json_object"})
    assert json.loads(reply.choices[0].message.content or "") == {"text": "text"}


def test_guided_extensions_on_both_endpoints(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="qwen2", messages=HELLO, max_tokens=20, extra_body={"guided_choice": ["red", "green"]})
    assert chat.choices[0].message.content in ("red", "green")
    text = client.completions.create(model="qwen2", prompt="Hello", max_tokens=20, extra_body={"guided_regex": "[ab]{3}"})
    assert re.fullmatch("[ab]{3}", text.choices[0].text)
