"""Anthropic's Messages API, and fields that came with models that think: the same kinds of attacks by other roads."""

from __future__ import annotations

from tests.adversarial.attack import CHAT, COMPLETIONS, REFUSED, Json, asking, posting

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"


def messages(content: Json = "Hello", model: str = "mock", **fields: Json) -> Json:
    return {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": content}], **fields}


def _uses(count: int, per_message: int, model: str = "mock") -> Json:
    """Tool calls, and their results in reverse order."""
    turns: list[Json] = [{"role": "user", "content": "x"}]
    for first in range(0, count, per_message):
        ids = [f"toolu_{i}" for i in range(first, first + per_message)]
        turns.append({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {"a": 1}} for id in ids]})
        turns.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "r"} for id in reversed(ids)]})
    return {"model": model, "max_tokens": 4, "messages": turns}


def _numbers(digits: int, count: int) -> bytes:
    return b'{"model":"mock","messages":[{"role":"user","content":"x"}],"workflow":[' + b",".join([b"9" * digits] * count) + b"]}"


ANTHROPIC = (
    posting("S1 messages: 8,000 tool results in reverse order", lambda: _uses(8_000, 500), path=MESSAGES, quick=True),
    posting("S1 messages: the same of a small model", lambda: _uses(8_000, 500, "tiny-chat"), path=MESSAGES),
    posting("S1 messages: 20,000 in one", lambda: _uses(20_000, 20_000), REFUSED, path=MESSAGES),
    posting(
        "S3 messages: 8,191 turns",
        lambda: {
            "model": "mock",
            "max_tokens": 4,
            "messages": [{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(8191)],
        },
        path=MESSAGES,
    ),
    posting("S3 messages: 200,000 blocks", lambda: messages([{"type": "text", "text": "x"}] * 200_000), REFUSED, path=MESSAGES),
    posting("S3 messages: a system of 100,000 blocks", lambda: messages(system=[{"type": "text", "text": "x"}] * 100_000), path=MESSAGES),
    posting("S4 messages: 15 MB", lambda: messages("word " * 3_000_000, "tiny-chat"), path=MESSAGES),
    posting("S4 messages: 15 MB to be counted", lambda: messages("word " * 3_000_000, "tiny-chat"), path=COUNT),
    posting(
        "S4 messages: a thought of 10 MB",
        lambda: {
            "model": "tiny-chat",
            "max_tokens": 4,
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm " * 3_000_000, "signature": "s" * 1_000_000}]},
                {"role": "user", "content": "y"},
            ],
        },
        path=MESSAGES,
    ),
    posting(
        "H7 messages: definitions that follow each other",
        lambda: messages(
            model="tiny-chat",
            tools=[
                {
                    "name": "f",
                    "input_schema": {
                        "type": "object",
                        "properties": {"a": {"$ref": "#/$defs/d0"}},
                        "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)} | {"d3000": {"type": "string"}},
                    },
                }
            ],
            tool_choice={"type": "any"},
        ),
        path=MESSAGES,
    ),
    posting(
        "messages: 128 tools of 8 kB",
        lambda: messages(
            model="tiny-chat",
            tools=[
                {"name": f"t{i}", "input_schema": {"type": "object", "properties": {f"p{j}": {"type": "string"} for j in range(300)}}}
                for i in range(128)
            ],
        ),
        path=MESSAGES,
    ),
    posting("S2 256 words to avoid", lambda: asking(bad_words=["a" * 120 + str(i) for i in range(256)], max_tokens=60)),
    posting(
        "S2 prompts that are scored: 400",
        lambda: {"model": "tiny-chat", "prompt": ["word " * 300] * 400, "max_tokens": 1, "prompt_logprobs": 20},
        path=COMPLETIONS,
        limit_s=180,
    ),
    posting("S3 1,024 documents of 10 kB", lambda: asking(documents=[{"title": "t", "text": "word " * 2000}] * 1024)),
    posting("S11 a template's arguments of 10 MB", lambda: asking(chat_template_kwargs={"a": ["x" * 100] * 90_000})),
    posting("numbers: 700,000 of 20 digits", lambda: _numbers(20, 700_000), REFUSED, path=CHAT, quick=True),
    posting("numbers: 700,000 of 19 digits", lambda: _numbers(19, 700_000), path=CHAT),
)
