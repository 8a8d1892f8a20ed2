"""`/tokenize` and `/detokenize`: what the engine reads, without the weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from transformers import AutoTokenizer

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from tests.support import checkpoints, thinking_templates
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.thinking_checkpoint import thinking

TOOL = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
TALK: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What time is it?<|im_end|>"},
    {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "a", "content": "noon"},
]
BEGUN = {"role": "assistant", "content": "Sure, "}
TEACHING = (
    "{% for tool in tools or [] %}{{ tool | tojson }}<tool_call>{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A template that writes tools."""


THINKING = {"qwen3": thinking_templates.QWEN3, "gpt-oss": thinking_templates.GPT_OSS}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    llama = checkpoints.llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048)
    qwen2 = checkpoints.qwen2(tmp_path_factory.mktemp("qwen2"), max_position_embeddings=2048)
    teaching = tmp_path_factory.mktemp("template") / "chat.jinja"
    teaching.write_text(TEACHING)
    shared: Any = {"device": "cpu", "dtype": "fp32"}
    papers = tmp_path_factory.mktemp("papers") / "chat.jinja"
    papers.write_text("{% for d in documents or [] %}{{ d.text }}\n{% endfor %}{{ messages[-1].content }}")
    paths = {name: str(thinking(tmp_path_factory.mktemp(name), source)) for name, source in THINKING.items()}
    models = {
        "llama": ModelConfig(model_name="llama", path=str(llama), model_type="llama", **shared),
        "qwen2": ModelConfig(model_name="qwen2", path=str(qwen2), **shared),
        "react": ModelConfig(model_name="react", path=str(qwen2), chat_template="qwen-chat", **shared),
        "plain": ModelConfig(model_name="plain", path=str(llama), model_type="gpt2", **shared),
        "teaching": ModelConfig(model_name="teaching", path=str(qwen2), chat_template=str(teaching), **shared),
        "papers": ModelConfig(model_name="papers", path=str(qwen2), chat_template=str(papers), **shared),
        **{name: ModelConfig(model_name=name, path=path, **shared) for name, path in paths.items()},
        "mock": ModelConfig(model_name="mock", backend="mock"),
        "missing": ModelConfig(model_name="missing", path="/nowhere"),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def tokenize(client: AsyncTestClient, **body: Any) -> dict[str, Any]:
    reply = await client.post("/tokenize", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_text_is_encoded_as_the_tokenizer_does_and_comes_back(client: AsyncTestClient, llama_checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_checkpoint)
    text = "The quick 你好 fox\n"
    found = await tokenize(client, model="llama", prompt=text, return_token_strs=True)
    assert found == {
        "count": len(found["tokens"]),
        "max_model_len": 2048,
        "tokens": tokenizer(text)["input_ids"],
        "token_strs": tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]),
    }
    back = await client.post("/detokenize", json={"model": "llama", "tokens": found["tokens"]})
    assert back.json() == {"prompt": tokenizer.decode(found["tokens"])}
    plain = await tokenize(client, model="llama", prompt=text, add_special_tokens=False)
    assert plain["tokens"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert plain["token_strs"] is None


async def test_tokens_are_counted_without_loading_the_model(client: AsyncTestClient) -> None:
    await tokenize(client, model="llama", prompt="Hello")
    assert (await client.get("/v1/models/llama")).json()["state"] == "cold"


@pytest.mark.parametrize("model", ["llama", "qwen2", "react", "plain"])
@pytest.mark.parametrize("change", [{}, {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "none"}], ids=["plain", "tools", "none"])
async def test_a_conversation_is_encoded_as_chat_completions_encode_it(client: AsyncTestClient, model: str, change: Any) -> None:
    messages = TALK if change.get("tools") else TALK[:2]
    counted = await tokenize(client, model=model, messages=messages, **change)
    reply = await client.post("/v1/chat/completions", json={"model": model, "messages": messages, "max_tokens": 1, **change})
    assert reply.json()["usage"]["prompt_tokens"] == counted["count"]
    # The same tokens: a raw completion of them finds all but the last in the cache.
    again = await client.post("/v1/completions", json={"model": model, "prompt": counted["tokens"], "max_tokens": 1})
    assert again.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == counted["count"] - 1


@pytest.mark.parametrize("rendering", [{}, {"add_generation_prompt": False}, {"continue_final_message": True}])
@pytest.mark.parametrize("schema", [{"properties": {"b": {}}, "type": "object"}, {"type": "object", "properties": {}, "required": []}])
async def test_tools_are_encoded_as_transformers_writes_them(
    client: AsyncTestClient, qwen2_checkpoint: Path, rendering: dict[str, bool], schema: dict[str, Any]
) -> None:
    tool = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": schema}}
    messages = [*TALK[:1], {"role": "user", "content": "What time is it?"}, BEGUN]
    found = await tokenize(client, model="teaching", messages=messages, tools=[tool], **rendering)
    tokenizer = AutoTokenizer.from_pretrained(qwen2_checkpoint)
    goes_on = rendering.get("continue_final_message", False)
    options: Any = {"add_generation_prompt": False if goes_on else rendering.get("add_generation_prompt", True)}
    written = tokenizer.apply_chat_template(
        messages, tools=[tool], chat_template=TEACHING, tokenize=False, continue_final_message=goes_on, **options
    )
    assert found["tokens"] == tokenizer(written, add_special_tokens=False)["input_ids"]


async def test_without_the_generation_prompt_the_assistants_turn_has_not_begun(client: AsyncTestClient) -> None:
    whole = await tokenize(client, model="qwen2", messages=TALK[:2])
    short = await tokenize(client, model="qwen2", messages=TALK[:2], add_generation_prompt=False)
    assert whole["tokens"][: short["count"]] == short["tokens"] and short["count"] < whole["count"]
    rest = await client.post("/detokenize", json={"model": "qwen2", "tokens": whole["tokens"][short["count"] :]})
    assert rest.json()["prompt"] == "<|im_start|>assistant\n"


async def test_the_mock_takes_words_for_tokens_and_gives_them_back(client: AsyncTestClient) -> None:
    found = await tokenize(client, model="mock", prompt="some words, and more", return_token_strs=True)
    assert found["token_strs"] == ["some", " words,", " and", " more"]
    assert found["tokens"] == (await tokenize(client, model="mock", prompt="some words, and more"))["tokens"]
    assert (await client.post("/detokenize", json={"model": "mock", "tokens": found["tokens"]})).json()["prompt"] == "some words, and more"


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {"model": "llama"}, 400, "prompt"),
        ("/tokenize", {"model": "llama", "prompt": "a", "messages": TALK[:1]}, 400, "messages"),
        ("/tokenize", {"model": "llama", "messages": []}, 400, "messages"),
        ("/tokenize", {"model": "llama", "prompt": "a", "tools": [TOOL]}, 400, "tools"),
        ("/tokenize", {"model": "llama", "prompt": "a", "continue_final_message": True}, 400, "continue_final_message"),
        ("/tokenize", {"model": "llama", "prompt": "a", "chat_template_kwargs": {"a": 1}}, 400, "chat_template_kwargs"),
        ("/tokenize", {"model": "llama", "messages": TALK, "continue_final_message": True, "tools": [TOOL]}, 400, "continue_final_message"),
        (
            "/tokenize",
            {"model": "react", "messages": [BEGUN], "continue_final_message": True, "tools": [TOOL]},
            400,
            "continue_final_message",
        ),
        ("/tokenize", {"model": "llama", "messages": TALK[:1], "chat_template": "x"}, 400, "chat_template"),
        ("/tokenize", {"model": "nothing", "prompt": "a"}, 404, "model"),
        ("/tokenize", {"model": "missing", "prompt": "a"}, 503, None),
        ("/detokenize", {"model": "llama", "tokens": [100_000]}, 400, "tokens"),
        ("/detokenize", {"model": "llama", "tokens": [-1]}, 400, "tokens"),
        ("/detokenize", {"model": "llama", "tokens": [2**64]}, 400, "tokens[0]"),
        ("/detokenize", {"model": "mock", "tokens": [1]}, 400, "tokens"),
        ("/detokenize", {"model": "llama"}, 400, "tokens"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_wrong_field_is_named(client: AsyncTestClient, path: str, body: dict[str, Any], status: int, param: str | None) -> None:
    reply = await client.post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


async def test_a_model_without_a_tokenizer_says_so() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([]))) as client:
        reply = await client.post("/tokenize", json={"model": "scripted", "prompt": "a"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("qwen3", {}),
        ("qwen3", {"reasoning_effort": "none"}),
        ("qwen3", {"reasoning": {"enabled": False}}),
        ("qwen3", {"thinking_budget": 0}),
        ("qwen3", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("gpt-oss", {"reasoning_effort": "high"}),
        ("gpt-oss", {"chat_template_kwargs": {"reasoning_effort": "a great deal"}}),
        ("papers", {"documents": [{"text": "It is noon, as everybody says."}]}),
    ],
)
async def test_what_changes_the_prompt_of_a_chat_is_counted(client: AsyncTestClient, model: str, fields: dict[str, Any]) -> None:
    asked = {"model": model, "messages": [{"role": "user", "content": "What time is it?"}]} | fields
    reply = await client.post("/v1/chat/completions", json=asked | {"max_tokens": 1, "return_token_ids": True})
    assert reply.status_code == 200, reply.text
    found = await tokenize(client, **asked)
    assert found["tokens"] == reply.json()["prompt_token_ids"] and found["count"] == reply.json()["usage"]["prompt_tokens"]
    plain = await tokenize(client, **{name: value for name, value in asked.items() if name not in fields})
    assert (plain == found) is (not fields)


@pytest.mark.parametrize("fields", [{"reasoning_effort": "low"}, {"thinking_budget": 0}, {"documents": []}, {"reasoning": {}}])
async def test_fields_of_a_conversation_are_refused_with_a_text(client: AsyncTestClient, fields: dict[str, Any]) -> None:
    reply = await client.post("/tokenize", json={"model": "qwen3", "prompt": "Hi", **fields})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(fields)))
    both = {"reasoning_effort": "low", "reasoning": {"effort": "high"}, "messages": [{"role": "user", "content": "Hi"}]}
    reply = await client.post("/tokenize", json={"model": "qwen3", **both})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "reasoning.effort")
