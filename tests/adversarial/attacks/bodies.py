"""Bodies of many elements, large numbers, and no JSON at all: what is decoded and checked before a model is asked."""

from __future__ import annotations

from tests.adversarial.attack import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    REFUSED,
    RESPONSES,
    Attack,
    Json,
    Target,
    asking,
    chat,
    posting,
)

MIB = 2**20


def _call(index: int, arguments: str = "{}") -> Json:
    return {"id": f"call_{index}", "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls_and_results(count: int, per_message: int, model: str = "mock") -> Json:
    """Tool calls, and their results in reverse order."""
    messages: list[Json] = [{"role": "user", "content": "x"}]
    for first in range(0, count, per_message):
        calls = range(first, min(first + per_message, count))
        messages.append({"role": "assistant", "tool_calls": [_call(i) for i in calls]})
        messages += [{"role": "tool", "tool_call_id": f"call_{i}", "content": "r"} for i in reversed(calls)]
    return {"model": model, "messages": messages, "max_tokens": 4}


def turns(count: int, text: str = "x", model: str = "mock") -> Json:
    roles = ("user", "assistant")
    return {"model": model, "max_tokens": 4, "messages": [{"role": roles[i % 2], "content": text} for i in range(count - 1 + count % 2)]}


def _digits(field: str, digits: int) -> bytes:
    return b'{"model":"mock","messages":[{"role":"user","content":"x"}],"%s":%s}' % (field.encode(), b"9" * digits)


def _field(raw: bytes) -> bytes:
    return b'{"model":"mock","messages":[{"role":"user","content":"x"}],' + raw + b"}"


async def _large_at_once(target: Target) -> list[int]:
    body = b'{"model":"mock","messages":[' + b'{"role":"user","content":"x"},' * 500_000 + b"{}]}"
    return await target.posts(CHAT, [body] * 8)


BODIES = (
    posting("S1 10,000 tool calls, results in reverse order", lambda: calls_and_results(10_000, 10_000), REFUSED, quick=True),
    posting("S1 8,000 calls in messages of 500, results reversed", lambda: calls_and_results(4_000, 500), quick=True),
    posting("S1 the same of a small model", lambda: calls_and_results(4_000, 500, "tiny-chat")),
    posting(
        "S1 one call answered 8,000 times",
        lambda: {
            "model": "mock",
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [_call(1)]}]
            + [{"role": "tool", "tool_call_id": "call_1", "content": "r"}] * 8000,
        },
    ),
    posting(
        "S1 items of /v1/responses in reverse order",
        lambda: {
            "model": "mock",
            "store": False,
            "input": [{"type": "function_call", "call_id": f"c{i}", "name": "f", "arguments": "{}"} for i in range(8000)]
            + [{"type": "function_call_output", "call_id": f"c{i}", "output": "x"} for i in reversed(range(8000))],
        },
        path=RESPONSES,
        quick=True,
    ),
    posting("S2 four stop strings of 1 MB", lambda: chat("!mock tokens=3000", stop=["a" * MIB] * 4), REFUSED, quick=True),
    posting(
        "S2 64 stop strings that almost match", lambda: chat("!mock tokens=30000", stop=["the model " * 100 + str(i) for i in range(64)])
    ),
    posting("S2 the same of a small model", lambda: asking("x", max_tokens=200, stop=["a" * 1000 + str(i) for i in range(64)])),
    posting(
        "S2 2,048 prompts of 3,000 tokens to the mock",
        lambda: {"model": "mock", "prompt": ["!mock tokens=3000"] * 2048, "max_tokens": 3000},
        path=COMPLETIONS,
        limit_s=180,
        memory_mib=1536,
    ),
    posting(
        "S2 the same as a stream",
        lambda: {"model": "mock", "prompt": ["!mock tokens=3000"] * 512, "max_tokens": 3000, "stream": True},
        path=COMPLETIONS,
        limit_s=180,
        memory_mib=1536,
    ),
    posting(
        "S2 128 choices with 20 log-probabilities",
        lambda: chat("!mock tokens=8000", n=128, logprobs=True, top_logprobs=20),
        limit_s=120,
        quick=True,
    ),
    posting(
        "S2 the same just below the limit",
        lambda: chat("!mock tokens=390", n=128, logprobs=True, top_logprobs=20, max_tokens=390),
        limit_s=120,
        memory_mib=1536,
    ),
    posting(
        "S2 the same of /v1/responses",
        lambda: {
            "model": "mock",
            "input": "!mock tokens=8000",
            "max_output_tokens": 8000,
            "top_logprobs": 20,
            "include": ["message.output_text.logprobs"],
            "store": False,
        },
        path=RESPONSES,
        limit_s=120,
    ),
    posting(
        "S2 best_of 128 of a mock",
        lambda: {"model": "mock", "prompt": "!mock tokens=8000", "max_tokens": 8000, "best_of": 128},
        path=COMPLETIONS,
        limit_s=120,
        memory_mib=1536,
    ),
    posting("S2 a mock of a million tokens", lambda: chat("!mock tokens=1000000", max_tokens=1_000_000), limit_s=120, memory_mib=1536),
    posting("S3 logit_bias of a million", lambda: chat(logit_bias={str(i): 1 for i in range(1_000_000)}), REFUSED, quick=True),
    posting("S3 logit_bias of 8,192", lambda: asking(logit_bias={str(i): -1 for i in range(4000)})),
    posting(
        "S3 30,000 items of /v1/responses",
        lambda: {
            "model": "mock",
            "input": [{"type": "function_call", "call_id": f"c{i}", "name": "f", "arguments": "{}"} for i in range(30_000)],
        },
        REFUSED,
        path=RESPONSES,
        quick=True,
    ),
    posting(
        "S3 16,384 items of /v1/responses",
        lambda: {"model": "mock", "store": False, "input": [{"role": "user", "content": "x"}] * 16_384},
        path=RESPONSES,
    ),
    posting("S3 16,384 items, stored", lambda: {"model": "mock", "input": [{"role": "user", "content": "x"}] * 16_384}, path=RESPONSES),
    posting(
        "S3 /detokenize of 3,000,000 ids",
        lambda: {"model": "tiny-chat", "tokens": [5] * 3_000_000},
        REFUSED,
        path="/detokenize",
        quick=True,
    ),
    posting("S3 /detokenize of 262,144 ids", lambda: {"model": "tiny-chat", "tokens": list(range(4096)) * 64}, path="/detokenize"),
    posting("S3 100,000 messages", lambda: turns(100_000), REFUSED, quick=True),
    posting("S3 8,191 messages", lambda: turns(8_192)),
    posting("S3 8,191 messages of a small model, cut to its context", lambda: turns(8_192, model="tiny-chat"), quick=True),
    posting("S3 8,191 messages of 1 kB of a small model", lambda: turns(8_192, "word " * 200, model="tiny-chat")),
    posting("S3 a prompt of 15 MB of token ids", lambda: {"model": "tiny-chat", "prompt": [12345] * 2_500_000}, REFUSED, path=COMPLETIONS),
    posting("S3 262,144 token ids", lambda: {"model": "tiny-chat", "prompt": [5] * 262_144}, REFUSED, path=COMPLETIONS),
    posting("S3 100,000 prompts of one token id", lambda: {"model": "mock", "prompt": [[5]] * 100_000}, REFUSED, path=COMPLETIONS),
    posting(
        "S3 a million parts of one message",
        lambda: {"model": "mock", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 300_000}]},
        REFUSED,
    ),
    posting(
        "S3 200 messages of 1,024 parts",
        lambda: {"model": "mock", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 1024}] * 120},
    ),
    posting("S3 metadata of 100,000", lambda: chat(metadata={str(i): "x" for i in range(100_000)}), REFUSED),
    posting("S3 200,000 fields that nobody knows", lambda: chat() | {f"f{i}": 1 for i in range(200_000)}, REFUSED),
    posting("S3 one field 200,000 times", lambda: _field(b",".join([b'"seed":1'] * 200_000))),
    posting("S3 embeddings of 2,048 texts", lambda: {"model": "mock", "input": ["a text"] * 2048}, path=EMBEDDINGS),
    posting("S3 embeddings of 100,000 texts", lambda: {"model": "mock", "input": ["a text"] * 100_000}, REFUSED, path=EMBEDDINGS),
    posting(
        "S3 embeddings of 2,048 texts of a small model",
        lambda: {"model": "tiny-chat", "input": ["a text of some words"] * 2048},
        path=EMBEDDINGS,
        limit_s=180,
    ),
    posting("S3 embeddings of 15 MB of ids", lambda: {"model": "tiny-chat", "input": [[7] * 100] * 50_000}, REFUSED, path=EMBEDDINGS),
    Attack("S3 eight bodies of 15 MB at a time", _large_at_once, REFUSED | {413, 429}, limit_s=120, memory_mib=2048),
    posting("numbers: an integer of five million digits", lambda: _digits("seed", 5_000_000), REFUSED, quick=True),
    posting("numbers: a temperature of five million digits", lambda: _digits("temperature", 5_000_000), REFUSED),
    posting("numbers: a key of 5,000 digits", lambda: chat(logit_bias={"9" * 5000: 1}), REFUSED),
    posting("numbers: a key of a million digits", lambda: chat(logit_bias={"9" * 1_000_000: 1}), REFUSED),
    posting("numbers: exponents", lambda: _field(b'"temperature":1e999999999'), REFUSED),
    posting("numbers: a long fraction", lambda: _field(b'"temperature":0.' + b"3" * 4_000_000)),
    posting("numbers: NaN", lambda: _field(b'"temperature":NaN'), REFUSED),
    posting("numbers: beyond 64 bits everywhere", lambda: chat(max_tokens=2**70, n=2**65, seed=2**80, top_k=2**64), REFUSED),
    posting("numbers: a subnormal temperature", lambda: asking(temperature=5e-324, top_p=5e-324, min_p=0.0)),
    posting("numbers: token ids out of range", lambda: {"model": "tiny-chat", "tokens": [-1, 4096, 2**40]}, REFUSED, path="/detokenize"),
    posting("numbers: a prompt of ids out of range", lambda: {"model": "tiny-chat", "prompt": [2**62, 4095]}, REFUSED, path=COMPLETIONS),
    posting("numbers: logit_bias of ids out of range", lambda: asking(logit_bias={str(2**40): 100, "4096": 1}), REFUSED),
    posting("numbers: orders to the mock", lambda: chat("!mock tokens=99999999999999999999 delay=nan load=inf error=777")),
    posting("numbers: a mock that sleeps for a year", lambda: chat("!mock delay=1e308 tokens=-5"), REFUSED | {200}),
    posting("JSON: 200,000 levels of lists", lambda: b"[" * 200_000, REFUSED, quick=True),
    posting("JSON: 16 MB of open lists", lambda: b"[" * (16 * MIB - 10), REFUSED),
    posting("JSON: 5 MB of open objects in a field", lambda: _field(b'"workflow":' + b'{"a":' * 1_000_000), REFUSED),
    posting("JSON: 99 levels a thousand times", lambda: _field(b'"workflow":{"a":[' + b",".join([b"[" * 90 + b"]" * 90] * 1000) + b"]}")),
    posting("JSON: 16 MB of spaces", lambda: b" " * (16 * MIB - 10), REFUSED),
    posting("JSON: 15 MB of escapes", lambda: chat("\x01" * 2_500_000)),
    posting("JSON: half of a surrogate pair", lambda: _field(b'"user":"\\ud800"')),
    posting("JSON: broken UTF-8", lambda: _field(b'"user":"\xff\xfe\xc0\x80"'), REFUSED),
    posting("JSON: UTF-16 with a byte order mark", lambda: '{"model":"mock"}'.encode("utf-16"), REFUSED),
    posting("JSON: nothing", lambda: b"", REFUSED),
    posting("JSON: null", lambda: b"null", REFUSED),
    posting("JSON: a body beyond the limit", lambda: b'"' + b"x" * (17 * MIB) + b'"', frozenset({413})),
    posting("JSON: a model's name of 10 MB", lambda: chat(model="m" * 10_000_000), REFUSED | {404}),
    posting(
        "JSON: a call's arguments in 5,000 levels",
        lambda: {
            "model": "tiny-chat",
            "max_tokens": 4,
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "tool_calls": [_call(1, "[" * 5000 + "]" * 5000)]},
                {"role": "tool", "tool_call_id": "call_1", "content": "r"},
            ],
        },
    ),
    posting(
        "JSON: a call's arguments of 10 MB",
        lambda: {
            "model": "mock",
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "tool_calls": [_call(1, '{"a":[' + "1," * 3_000_000 + "1]}")]},
                {"role": "tool", "tool_call_id": "call_1", "content": "r"},
            ],
        },
    ),
    posting(
        "JSON: a data URL of 12 MB",
        lambda: {
            "model": "mock",
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 12_000_000}}]}
            ],
        },
    ),
)
