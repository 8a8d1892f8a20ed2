"""vLLM's fields over HTTP, whole and streamed, on an engine with random weights: what they do, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "Hello"}]
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 16},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 16},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16, "store": False},
}


@pytest.fixture(scope="module")
async def client(qwen2_checkpoint: Path) -> AsyncIterator[AsyncTestClient]:
    models = {
        "m": ModelConfig(model_name="m", path=str(qwen2_checkpoint), device="cpu", dtype="fp32"),
        "mock": ModelConfig(model_name="mock", backend="mock"),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def post(client: AsyncTestClient, path: str, **fields: Any) -> Any:
    reply = await client.post(path, json={"model": "m", "temperature": 0, **PROMPTS[path], **fields}, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply


async def chunks(client: AsyncTestClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    reply = await post(client, path, stream=True, **fields)
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def text(client: AsyncTestClient, path: str, **fields: Any) -> str:
    """What is said; the same whether it is streamed or not."""
    whole, streamed = (await post(client, path, **fields)).json(), await chunks(client, path, **fields)
    if path == "/v1/responses":
        said = "".join(part["text"] for item in whole["output"] for part in item.get("content", ()))
        pieces = [event["delta"] for event in streamed if event["type"] == "response.output_text.delta"]
    elif path == "/v1/completions":
        said = whole["choices"][0]["text"]
        pieces = [choice["text"] for chunk in streamed for choice in chunk["choices"]]
    else:
        said = whole["choices"][0]["message"]["content"]
        pieces = [choice["delta"].get("content") or "" for chunk in streamed for choice in chunk["choices"]]
    assert "".join(pieces) == said
    return said


async def refused(client: AsyncTestClient, path: str, **fields: Any) -> dict[str, Any]:
    reply = await client.post(path, json={"model": "m", **PROMPTS[path], **fields}, timeout=60)
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


@pytest.mark.parametrize("path", PROMPTS)
async def test_ends_reach_the_engine_from_every_endpoint(client: AsyncTestClient, path: str) -> None:
    end = {"logit_bias": {"2": 100}}  # <|im_end|>, the end of text
    assert await text(client, path, **end) == ""
    shown = {"include_stop_str_in_output": True, "skip_special_tokens": False}
    assert await text(client, path, **end, **shown) == "<|im_end|>"
    assert len(await text(client, path, **end, min_tokens=4)) >= 4
    start = {"logit_bias": {"1": 100}, "stop_token_ids": [1], "min_tokens": 0}
    assert await text(client, path, **start, **shown) == "<|im_start|>"
    letter = (await client.post("/tokenize", json={"model": "m", "prompt": "x"})).json()["tokens"][0]
    biased = {"logit_bias": {str(letter): 100}, "ignore_eos": True}
    assert await text(client, path, **biased) == "x" * 16
    assert "x" not in await text(client, path, **biased, bad_words=["x"])


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"regex": "a{3}b"}, "aaab"),
        ({"choice": ["only this"]}, "only this"),
        ({"grammar": 'start: "x" "y"'}, "xy"),
        ({"grammar": 'root ::= [x-x] rest\nrest ::= "y"'}, "xy"),
        ({"structural_tag": {"type": "structural_tag", "format": {"type": "const_string", "value": "xyz"}}}, "xyz"),
        ({"json": {"const": 7}}, "7"),
        ({"json": '{"const": 7}', "disable_any_whitespace": True, "disable_additional_properties": False}, "7"),
    ],
)
async def test_structured_outputs_are_followed(client: AsyncTestClient, path: str, field: dict[str, Any], expected: str) -> None:
    assert await text(client, path, structured_outputs=field) == expected


async def test_completions_take_a_response_format_as_in_vllm(client: AsyncTestClient) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": [1]}}}
    assert await text(client, "/v1/completions", response_format=form) == "[1]"
    content = {"type": "regex", "pattern": "[7]"}
    tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "<n>", "content": content, "end": "</n>"}}
    for path in ("/v1/completions", "/v1/chat/completions"):
        assert await text(client, path, response_format=tag) == "<n>7</n>"
    said = await text(client, "/v1/completions", structured_outputs={"json_object": True}, max_tokens=100, seed=1)
    assert said.startswith("{")


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs.regex"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"grammar": "root ::= rest"}}, "structured_outputs.grammar"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"cache_salt": "s"}, "cache_salt"),
        ({"priority": 1}, "priority"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_served_is_refused_by_name(client: AsyncTestClient, path: str, fields: dict[str, Any], param: str) -> None:
    error = await refused(client, path, **fields)
    assert error["param"] == param and param.partition("[")[0] in error["message"], error


@pytest.mark.parametrize("path", PROMPTS)
async def test_a_model_that_is_null_is_the_default_one(path: str) -> None:
    settings = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")}, default_model="mock")
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        assert (await client.post(path, json={**PROMPTS[path], "model": None})).json()["model"] == "mock"
    settings = msgspec.structs.replace(settings, default_model=None)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        reply = await client.post(path, json={**PROMPTS[path], "model": None})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("path", PROMPTS)
async def test_what_changes_nothing_is_accepted(client: AsyncTestClient, path: str) -> None:
    harmless = {"request_id": "r", "session_id": "s", "spaces_between_special_tokens": False, "stream_interval": 4}
    off = {"priority": 0, "use_beam_search": False, "length_penalty": 1.0, "thinking_token_budget": -1, "cache_salt": None}
    empty: dict[str, Any] = {"stop_token_ids": [], "bad_words": [], "min_tokens": 0, "structured_outputs": None}
    assert await text(client, path, **harmless, **off, **empty) == await text(client, path)


CHAT, COMPLETIONS, RESPONSES = PROMPTS


async def tokens(client: AsyncTestClient, **fields: Any) -> list[int]:
    reply = await client.post("/tokenize", json={"model": "m", **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()["tokens"]


SYSTEM_ALONE = [{"role": "system", "content": "Be "}]
TURN = [*MESSAGES, {"role": "assistant", "content": "Hello to "}]


@pytest.mark.parametrize(
    "rendering",
    [{"add_generation_prompt": False}, {"continue_final_message": True}, {"continue_final_message": True, "add_generation_prompt": False}],
)
async def test_chat_reads_what_tokenize_says(client: AsyncTestClient, rendering: dict[str, Any]) -> None:
    read = await tokens(client, messages=TURN, **rendering)
    assert await text(client, CHAT, messages=TURN, **rendering) == await text(client, COMPLETIONS, prompt=read)
    plain = await tokens(client, messages=TURN)
    assert plain != read


async def test_a_continued_message_comes_before_its_continuation_where_echo_is_asked_for(client: AsyncTestClient) -> None:
    going_on = {"messages": TURN, "continue_final_message": True}
    continued = await text(client, CHAT, **going_on)
    assert await text(client, CHAT, **going_on, echo=True) == "Hello to " + continued
    assert await text(client, CHAT, echo=True) == await text(client, CHAT)  # the last message is the user's
    both = (await post(client, CHAT, **going_on, echo=True, n=2)).json()["choices"]
    assert [choice["message"]["content"] for choice in both] == ["Hello to " + continued] * 2


async def test_prompts_are_cut_to_their_last_tokens(client: AsyncTestClient) -> None:
    prompt = "The quick brown fox jumps over the lazy dog."
    read = await tokens(client, prompt=prompt)
    assert await text(client, COMPLETIONS, prompt=prompt, truncate_prompt_tokens=5) == await text(client, COMPLETIONS, prompt=read[-5:])
    assert await text(client, COMPLETIONS, prompt=read, truncate_prompt_tokens=5) == await text(client, COMPLETIONS, prompt=read[-5:])
    whole = await post(client, COMPLETIONS, prompt=prompt, truncate_prompt_tokens=256)
    assert whole.json()["usage"]["prompt_tokens"] == len(read)
    chat = [{"role": "user", "content": "word " * 400}]  # longer than the context, 256 tokens
    for fields, size in (
        ({"truncate_prompt_tokens": 12}, 12),
        ({"truncate_prompt_tokens": -1}, 240),
        ({"truncate_prompt_tokens": 240}, 240),
    ):
        assert (await post(client, CHAT, messages=chat, **fields)).json()["usage"]["prompt_tokens"] == size
    echoed = await text(client, COMPLETIONS, prompt=prompt, truncate_prompt_tokens=2, echo=True)
    assert echoed.startswith((await client.post("/detokenize", json={"model": "m", "tokens": read[-2:]})).json()["prompt"])


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
async def test_variables_that_the_template_does_not_know_are_named_in_the_header(client: AsyncTestClient, path: str, stream: bool) -> None:
    reply = await post(client, path, chat_template_kwargs={"enable_thinking": False, "bös": 1}, stream=stream)
    assert reply.headers["x-mm-gateway-ignored"] == r"chat_template_kwargs.enable_thinking, chat_template_kwargs.b\xf6s"
    mocked = await post(client, path, model="mock", chat_template_kwargs={"enable_thinking": False}, stream=stream)
    assert mocked.headers["x-mm-gateway-ignored"] == "chat_template_kwargs.enable_thinking"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        (
            {"continue_final_message": True, "tools": [{"type": "function", "function": {"name": "f"}}], "messages": SYSTEM_ALONE},
            "continue_final_message",
        ),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"documents": [{"text": "a"}]}, "documents"),
        ({"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 257}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 0}, "messages"),
        ({"truncation_side": "right"}, "truncation_side"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_renderings_that_cannot_be_are_refused_by_name(client: AsyncTestClient, fields: dict[str, Any], param: str) -> None:
    assert (await refused(client, CHAT, **fields))["param"] == param


async def sampled(client: AsyncTestClient, path: str, **fields: Any) -> list[int]:
    """The tokens of the only choice; the same whether it is streamed or not, and as many as usage says."""
    whole = (await post(client, path, return_token_ids=True, **fields)).json()
    streamed = await chunks(client, path, return_token_ids=True, **fields)
    ids = whole["choices"][0]["token_ids"]
    assert [id for chunk in streamed for choice in chunk["choices"] for id in choice.get("token_ids", ())] == ids
    assert len(ids) == whole["usage"]["completion_tokens"]
    return ids


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_token_ids_are_all_that_were_sampled(client: AsyncTestClient, path: str) -> None:
    ids = await sampled(client, path, ignore_eos=True)
    assert len(ids) == 16
    said = await text(client, path, ignore_eos=True)
    assert (await client.post("/detokenize", json={"model": "m", "tokens": ids})).json()["prompt"] == said
    assert await sampled(client, path, logit_bias={"2": 100}) == [2]  # the end of text, which the text leaves out
    letter = (await tokens(client, prompt="x"))[0]
    assert await sampled(client, path, logit_bias={str(letter): 100}, stop="xx") == [letter] * 2
    assert "token_ids" not in (await post(client, path)).text


async def test_token_ids_of_calls_are_told_too(client: AsyncTestClient) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}, "additionalProperties": False}}}
    fields: dict[str, Any] = {"tools": [tool], "tool_choice": "required", "max_tokens": 100, "truncate_prompt_tokens": 100}
    ids = await sampled(client, CHAT, **fields)
    written = (await client.post("/detokenize", json={"model": "m", "tokens": ids})).json()["prompt"]
    assert '"f"' in written


@pytest.mark.parametrize("model", ["m", "mock"])
async def test_prompts_are_told_as_tokens(client: AsyncTestClient, model: str) -> None:
    async def read(**fields: Any) -> list[int]:
        return (await client.post("/tokenize", json={"model": model, **fields})).json()["tokens"]

    chat = await read(messages=MESSAGES)
    assert (await post(client, CHAT, model=model, return_token_ids=True)).json()["prompt_token_ids"] == chat
    first, *others = await chunks(client, CHAT, model=model, return_token_ids=True)
    assert first["prompt_token_ids"] == chat and first["choices"][0]["delta"]["role"] == "assistant"
    assert not any("prompt_token_ids" in chunk for chunk in others)
    prompts = ["Hello", "Once upon a time"]
    expected = [await read(prompt=prompt) for prompt in prompts for _ in range(2)]
    several: dict[str, Any] = {"model": model, "prompt": prompts, "n": 2, "return_token_ids": True}
    whole = (await post(client, COMPLETIONS, **several)).json()["choices"]
    assert [choice["prompt_token_ids"] for choice in whole] == expected
    told = [choice for chunk in await chunks(client, COMPLETIONS, **several) for choice in chunk["choices"] if "prompt_token_ids" in choice]
    assert [choice["prompt_token_ids"] for choice in sorted(told, key=lambda choice: choice["index"])] == expected


@pytest.mark.parametrize("model", ["m", "mock"])
async def test_log_probabilities_of_a_prompt_have_vllms_shape(client: AsyncTestClient, model: str) -> None:
    prompt = "The quick brown fox"
    ids = (await client.post("/tokenize", json={"model": model, "prompt": prompt})).json()["tokens"]
    scored = (await post(client, COMPLETIONS, model=model, prompt=prompt, prompt_logprobs=3)).json()["choices"][0]
    first, *others = scored["prompt_logprobs"]
    assert first is None and len(others) == len(ids) - 1
    for id, entry in zip(ids[1:], others, strict=True):
        own = entry[str(id)]
        ranked = sorted(entry.values(), key=lambda found: found["rank"])
        assert [found["rank"] for found in ranked][:3] == [1, 2, 3] and 3 <= len(entry) <= 4
        assert [found["logprob"] for found in ranked] == sorted((found["logprob"] for found in ranked), reverse=True)
        assert own["decoded_token"] in prompt and own["logprob"] < 0
    echoed = (await post(client, COMPLETIONS, model=model, prompt=prompt, echo=True, logprobs=0)).json()["choices"][0]["logprobs"]
    assert echoed["token_logprobs"][1 : len(ids)] == [entry[str(id)]["logprob"] for id, entry in zip(ids[1:], others, strict=True)]
    alone = (await post(client, COMPLETIONS, model=model, prompt=prompt, prompt_logprobs=0, max_tokens=0)).json()
    assert (alone["choices"][0]["text"], alone["usage"]["completion_tokens"]) == ("", 0)
    assert [entry and len(entry) for entry in alone["choices"][0]["prompt_logprobs"]] == [None] + [1] * (len(ids) - 1)
    chat = (await post(client, CHAT, model=model, prompt_logprobs=1)).json()
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]


async def test_scored_prompts_are_echoed_and_scored_in_one_request(client: AsyncTestClient) -> None:
    both = (await post(client, COMPLETIONS, echo=True, logprobs=2, prompt_logprobs=2, n=2)).json()["choices"]
    alone = (await post(client, COMPLETIONS, prompt_logprobs=2)).json()["choices"][0]
    assert all(choice["text"].startswith("Hello") and choice["prompt_logprobs"] == alone["prompt_logprobs"] for choice in both)


@pytest.mark.parametrize("model", ["m", "mock"])
async def test_log_probabilities_name_tokens_by_their_ids(client: AsyncTestClient, model: str) -> None:
    fields: dict[str, Any] = {
        "model": model,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "max_tokens": 3,
        "ignore_eos": True,
    }
    chat = (await post(client, CHAT, logprobs=True, top_logprobs=2, **fields)).json()["choices"][0]
    names = [f"token_id:{id}" for id in chat["token_ids"]]
    assert [entry["token"] for entry in chat["logprobs"]["content"]] == names
    assert all(top["token"].startswith("token_id:") for entry in chat["logprobs"]["content"] for top in entry["top_logprobs"])
    completion = (await post(client, COMPLETIONS, logprobs=1, **fields)).json()["choices"][0]
    assert completion["logprobs"]["tokens"] == [f"token_id:{id}" for id in completion["token_ids"]]
    streamed = await chunks(client, COMPLETIONS, logprobs=1, **fields)
    told = [name for chunk in streamed for choice in chunk["choices"] if choice["logprobs"] for name in choice["logprobs"]["tokens"]]
    assert told == completion["logprobs"]["tokens"]


@pytest.mark.parametrize("model", ["m", "mock"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("end", ["stop", "stop_token_ids", "the end of text"])
async def test_token_ids_and_log_probabilities_tell_the_same_tokens_to_the_end(
    client: AsyncTestClient, path: str, model: str, end: str
) -> None:
    fields: dict[str, Any] = {"model": model, "return_token_ids": True, "seed": 1}
    first = (await post(client, path, **fields, ignore_eos=True)).json()["choices"][0]
    written = (await client.post("/detokenize", json={"model": model, "tokens": first["token_ids"][2:4]})) if model == "m" else None
    match end:
        case "stop":
            fields["stop"] = written.json()["prompt"] if written else (first.get("text") or first["message"]["content"]).split(" ")[3]
        case "stop_token_ids":
            fields["stop_token_ids"] = [first["token_ids"][3]]
        case _:
            fields["logit_bias"] = {"2": 100} if model == "m" else {}
    scored = {"logprobs": True} if path == CHAT else {"logprobs": 0}
    whole = (await post(client, path, **fields, **scored, return_tokens_as_token_ids=True)).json()["choices"][0]
    names = [f"token_id:{id}" for id in whole["token_ids"]]
    told = whole["logprobs"]
    assert ([entry["token"] for entry in told["content"]] if path == CHAT else told["tokens"]) == names
    for chunk in await chunks(client, path, **fields, **scored, return_tokens_as_token_ids=True):
        for choice in chunk["choices"]:
            told = choice["logprobs"] or {}
            found = [entry["token"] for entry in told.get("content", ())] or told.get("tokens", [])
            assert found == [f"token_id:{id}" for id in choice.get("token_ids", ())]


async def test_what_ended_a_text_is_told(client: AsyncTestClient) -> None:
    async def reason(path: str, **fields: Any) -> Any:
        whole = (await post(client, path, **fields)).json()["choices"][0]
        streamed = [choice for chunk in await chunks(client, path, **fields) for choice in chunk["choices"] if choice["finish_reason"]]
        assert [choice["stop_reason"] for choice in streamed] == [whole["stop_reason"]], fields
        return whole["finish_reason"], whole["stop_reason"]

    letter = (await tokens(client, prompt="x"))[0]
    for path in (CHAT, COMPLETIONS):
        biased: dict[str, Any] = {"logit_bias": {str(letter): 100}, "ignore_eos": True}
        assert await reason(path, **biased) == ("length", None)
        assert await reason(path, **biased, stop=["y", "xx"]) == ("stop", "xx")
        assert await reason(path, **biased, stop_token_ids=[letter]) == ("stop", letter)
        assert await reason(path, logit_bias={"2": 100}) == ("stop", None)  # the end of text
        assert await reason(path, logit_bias={"2": 100}, stop=["<|im_end|>"]) == ("stop", "<|im_end|>")
        assert await reason(path, model="mock", max_tokens=100) == ("stop", None)
        assert await reason(path, model="mock", stop=["o", "e"], max_tokens=100) in (("stop", "o"), ("stop", "e"))
        assert await reason(path, model="mock", max_tokens=1) == ("length", None)
    best = (await post(client, COMPLETIONS, best_of=2, logit_bias={str(letter): 100}, stop="xx")).json()["choices"][0]
    assert best["stop_reason"] == "xx"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}, "additionalProperties": False}}}
    called: dict[str, Any] = {
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 100,
        "truncate_prompt_tokens": 100,
    }
    assert await reason(CHAT, **called) == ("tool_calls", None)


async def test_the_tokens_own_log_probability_is_among_the_top_ones(client: AsyncTestClient) -> None:
    def check(logprobs: dict[str, Any], most: int) -> None:
        for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
            assert len(top) in (max(most, 1), most + 1) and top[token] == logprob

    fields: dict[str, Any] = {"temperature": 2, "seed": 3, "ignore_eos": True, "return_tokens_as_token_ids": True}
    for count in (0, 1, 5):
        whole = (await post(client, COMPLETIONS, logprobs=count, **fields)).json()["choices"][0]["logprobs"]
        check(whole, count)
        for chunk in await chunks(client, COMPLETIONS, logprobs=count, **fields):
            for choice in chunk["choices"]:
                if choice["logprobs"]:
                    check(choice["logprobs"], count)


@pytest.mark.parametrize("best_of", [1, 2])
async def test_completions_tell_the_log_probability_of_every_token_that_was_sampled(client: AsyncTestClient, best_of: int) -> None:
    letter = (await tokens(client, prompt="x"))[0]
    for fields in ({"logit_bias": {"2": 100}}, {"logit_bias": {str(letter): 100}, "stop": "xxx"}, {"max_tokens": 3}):
        for echo in (False, True):
            reply = (await post(client, COMPLETIONS, logprobs=0, echo=echo, best_of=best_of, **fields)).json()
            told, usage = reply["choices"][0]["logprobs"], reply["usage"]
            sizes = {len(entries) for entries in told.values()}
            assert sizes == {usage["completion_tokens"] // best_of + (usage["prompt_tokens"] if echo else 0)}
            assert told["text_offset"][-1] <= len(reply["choices"][0]["text"])
    # A chat's are those of its text, as OpenAI's.
    chat = (await post(client, CHAT, logprobs=True, logit_bias={"2": 100})).json()
    assert (chat["usage"]["completion_tokens"], chat["choices"][0]["logprobs"]["content"]) == (1, [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_can_be_continued_where_tools_may_be_called(client: AsyncTestClient, stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}, "additionalProperties": False}}}
    # The context has no room for the description of a tool: its end is read.
    fields: dict[str, Any] = {"messages": TURN, "continue_final_message": True, "tools": [tool], "truncate_prompt_tokens": 100}
    read = await tokens(client, messages=TURN, continue_final_message=True, tools=[tool])
    free = {"max_tokens": 12, "stream": stream, "return_token_ids": True}
    reply = await post(client, CHAT, **fields, **free)
    first = json.loads(reply.text.split("data: ")[1]) if stream else reply.json()
    assert first["prompt_token_ids"] == read[-100:]
    called = (await post(client, CHAT, **{**fields, "max_tokens": 100}, tool_choice="required")).json()["choices"][0]["message"]
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize("model", ["m", "mock"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_each_chunk_has_the_usage_so_far(client: AsyncTestClient, path: str, model: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *others, last = await chunks(client, path, model=model, n=2, stream_options=options, ignore_eos=True)
    counts = [chunk["usage"]["completion_tokens"] for chunk in others]
    assert counts == sorted(counts) and counts[-1] == last["usage"]["completion_tokens"] == 32
    assert {chunk["usage"]["prompt_tokens"] for chunk in others} == {last["usage"]["prompt_tokens"]}
    assert all(chunk["usage"]["total_tokens"] > chunk["usage"]["prompt_tokens"] for chunk in others[3:])
    plain = await chunks(client, path, model=model, stream_options={"continuous_usage_stats": True})
    assert not any("usage" in chunk for chunk in plain)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ],
)
async def test_log_probabilities_of_a_prompt_are_bounded(client: AsyncTestClient, path: str, fields: dict[str, Any], param: str) -> None:
    assert (await refused(client, path, **fields))["param"] == param


async def test_log_probabilities_of_many_prompts_are_bounded(client: AsyncTestClient) -> None:
    error = await refused(client, COMPLETIONS, model="mock", prompt=["word " * 30_000] * 2, prompt_logprobs=20)
    assert error["param"] == "prompt_logprobs" and "1048576" in error["message"]
    assert (await refused(client, COMPLETIONS, echo=True, logprobs=1, prompt_logprobs=2))["param"] == "prompt_logprobs"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_mock_knows_the_fields_that_end_its_text(client: AsyncTestClient, path: str) -> None:
    fields: dict[str, Any] = {"model": "mock", "max_tokens": 40}
    words = (await text(client, path, **fields)).split(" ")
    assert len(words) == 24
    assert len((await text(client, path, **fields, min_tokens=30)).split(" ")) == 30
    stop = " " + words[2]
    assert await text(client, path, **fields, stop=stop) == " ".join(words[:2])
    assert await text(client, path, **fields, stop=stop, include_stop_str_in_output=True) == " ".join(words[:3])
    ids = await sampled(client, path, **fields)
    assert await text(client, path, **fields, stop_token_ids=[ids[2]]) == " ".join(words[:2])
    assert words[1] not in await text(client, path, **fields, bad_words=[words[1]])
