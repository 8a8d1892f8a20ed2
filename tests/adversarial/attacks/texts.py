"""Long texts, texts that a tokenizer finds hard, and clients that do not wait for theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.adversarial.attack import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    OK,
    REFUSED,
    RESPONSES,
    SERVED_OR_REFUSED,
    Attack,
    Target,
    asking,
    posting,
)

MB = 1_000_000


def _tokenize(
    name: str, text: Callable[[], str], answers: frozenset[int] = SERVED_OR_REFUSED, *, memory_mib: int = 96, **rest: Any
) -> Attack:
    return posting(
        f"/tokenize: {name}",
        lambda: {"model": "tiny-chat", "prompt": text(), "return_token_strs": True},
        answers,
        path="/tokenize",
        memory_mib=memory_mib,
        **rest,
    )


async def _hang_ups(target: Target) -> list[int]:
    """Their texts are still being encoded; a small request must not wait for them."""
    body = asking("word and words " * (2 * MB // 15))
    await asyncio.gather(*(target.hang_up(CHAT, body, after_s=0.05) for _ in range(6)))
    return [await target.post(CHAT, asking())]


async def _hang_ups_of_tokenize(target: Target) -> list[int]:
    body = {"model": "tiny-chat", "prompt": "aé漢 " * 36_000}
    await asyncio.gather(*(target.hang_up("/tokenize", body, after_s=0.05) for _ in range(16)))
    return [await target.post(CHAT, asking())]


async def _a_few_in_a_row(target: Target) -> list[int]:
    return [await target.post(CHAT, asking("word " * (3 * MB))) for _ in range(4)]


async def _at_a_time(target: Target) -> list[int]:
    return await target.posts("/tokenize", [{"model": "tiny-chat", "prompt": "word " * 52_000}] * 12)


TEXTS = (
    posting("S4 a message of 15 MB", lambda: asking("word " * (3 * MB)), REFUSED, quick=True),
    posting("S4 a message of 15 MB without a space", lambda: asking("a" * 15 * MB), REFUSED),
    posting("S4 a message of 5 million Chinese characters", lambda: asking("漢字" * (5 * MB // 2)), REFUSED),
    posting("S4 a prompt of 15 MB", lambda: {"model": "tiny-chat", "prompt": "word " * (3 * MB)}, REFUSED, path=COMPLETIONS),
    posting("S4 100 prompts of 150 kB", lambda: {"model": "tiny-chat", "prompt": ["word " * 30_000] * 100}, REFUSED, path=COMPLETIONS),
    posting("S4 an embedding of 15 MB", lambda: {"model": "tiny-chat", "input": "word " * (3 * MB)}, REFUSED, path=EMBEDDINGS),
    posting("S4 64 embeddings of 7 kB", lambda: {"model": "tiny-chat", "input": ["word " * 1400] * 64}, path=EMBEDDINGS, limit_s=300),
    posting("S4 /v1/responses of 15 MB", lambda: {"model": "tiny-chat", "input": "word " * (3 * MB)}, REFUSED, path=RESPONSES),
    posting(
        "S4 /v1/responses/input_tokens of 15 MB",
        lambda: {"model": "tiny-chat", "input": "word " * (3 * MB)},
        REFUSED,
        path="/v1/responses/input_tokens",
    ),
    posting(
        "S4 a system message of 15 MB, then a short one",
        lambda: {
            "model": "tiny-chat",
            "max_tokens": 4,
            "messages": [{"role": "system", "content": "word " * (3 * MB)}, {"role": "user", "content": "x"}],
        },
        REFUSED,
    ),
    posting("S4 a mock's message of 15 MB", lambda: asking("word " * (3 * MB), model="mock")),
    posting(
        "S4 a tool's description of 10 MB",
        lambda: asking(tools=[{"type": "function", "function": {"name": "f", "description": "word " * (2 * MB), "parameters": {}}}]),
    ),
    posting(
        "S4 a call's arguments of 10 MB in the history",
        lambda: {
            "model": "tiny-chat",
            "max_tokens": 4,
            "messages": [
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"' + "x" * 10 * MB + '"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ],
        },
    ),
    Attack("S4 four of 15 MB in a row", _a_few_in_a_row, REFUSED),
    Attack("S5 six clients send 2 MB and hang up", _hang_ups, OK, quick=True, limit_s=30),
    Attack("S5 sixteen clients have 250 kB tokenized and hang up", _hang_ups_of_tokenize, OK | {429}, limit_s=60),
    Attack("S5 twelve texts of 260 kB tokenized at a time", _at_a_time, SERVED_OR_REFUSED, limit_s=180),
    _tokenize("256 KiB of words", lambda: "word " * 52_000, quick=True),
    _tokenize("256 KiB of one letter", lambda: "a" * 2**18),
    _tokenize("256 KiB of spaces", lambda: " " * 2**18),
    _tokenize("256 KiB of line ends", lambda: "\r\n" * 2**17),
    _tokenize("256 KiB of digits", lambda: "0123456789" * 26_000),
    _tokenize("256 KiB of combining marks on one letter", lambda: "e" + "\u0301" * 131_000),
    _tokenize("256 KiB of joined emoji", lambda: "👩‍👩‍👧‍👦" * 10_000),
    _tokenize("256 KiB of NUL", lambda: "\x00" * 260_000),
    _tokenize("256 KiB of special tokens", lambda: "<|im_start|><|im_end|>" * 11_000),
    _tokenize("256 KiB of Korean letters that compose", lambda: "\u1100\u1161\u11a8" * 29_000),
    _tokenize("2 MiB", lambda: "word " * 420_000, REFUSED, memory_mib=64),
    posting(
        "/tokenize: 2,000 messages",
        lambda: {"model": "tiny-chat", "messages": [{"role": "user", "content": "word " * 40}] * 2000},
        path="/tokenize",
    ),
)
