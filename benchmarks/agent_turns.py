"""How soon an agent's turns begin: a long system prompt with tools, then turns that each add a little, alone and with others at work.

    python -m benchmarks.agent_turns --base-url http://127.0.0.1:8000/v1 --model qwen3 --tokens 30000 --turns 4 --others 0 4

The conversation is an agent's: a system text and definitions of tools of about `--tokens` tokens together, a question, and for each later
turn a call, its result and another question. Time to first token (TTFT) is from sending a request to the first piece of text; cached tokens
are those of the server's `usage`. Others are clients with prompts of their own that ask without a pause, all the while. A second turn that
starts at once is a TTFT close to that of a short prompt, and cached tokens close to the whole of the first turn's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any, NamedTuple

import httpx

WORDS = ("file", "line", "code", "test", "path", "name", "value", "error", "build", "read", "write", "list", "check", "server", "model")
OTHERS_TOKENS = 256


class Turn(NamedTuple):
    """ttft_s, total_s: seconds. prompt, cached: tokens, as the server's usage says."""

    ttft_s: float
    total_s: float
    prompt: int
    cached: int


def text_of(tokens: int, seed: int) -> str:
    """About so many tokens of plain words, other ones for each seed."""
    random_words = random.Random(seed)
    return " ".join(random_words.choice(WORDS) for _ in range(tokens))


def tools_of(tokens: int) -> list[dict[str, Any]]:
    """Definitions of twenty functions, of about so many tokens together."""
    schema = {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}, "required": ["path"]}
    return [
        {"type": "function", "function": {"name": f"tool_{number}", "description": text_of(tokens // 20, number), "parameters": schema}}
        for number in range(20)
    ]


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Turn:
    """Raises httpx.HTTPStatusError where the server refuses."""
    started = time.perf_counter()
    first: float | None = None
    usage: dict[str, Any] = {}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "chat/completions", json=body | options) as response:
        if response.status_code != 200:
            await response.aread()
            raise SystemExit(f"{response.status_code}: {response.text[:500]}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            delta = chunk["choices"][0]["delta"] if chunk.get("choices") else {}
            if first is None and (delta.get("content") or delta.get("tool_calls")):
                first = time.perf_counter()
            usage = chunk.get("usage") or usage
    ended = time.perf_counter()
    details = usage.get("prompt_tokens_details") or {}
    return Turn((first or ended) - started, ended - started, usage.get("prompt_tokens", 0), details.get("cached_tokens", 0))


async def agent(client: httpx.AsyncClient, model: str, tokens: int, turns: int, seed: int, reply_tokens: int) -> list[Turn]:
    """The turns of one agent; a seed's conversation begins like no other's."""
    system = f"Agent {seed}. {text_of(tokens // 2, seed)}"
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}, {"role": "user", "content": "Read the notes."}]
    shared = {"model": model, "tools": tools_of(tokens // 2), "tool_choice": "none", "max_tokens": reply_tokens, "temperature": 0}
    found: list[Turn] = []
    for turn in range(turns):
        found.append(await ask(client, shared | {"messages": messages}))
        call = {"id": f"call_{turn}", "type": "function", "function": {"name": "tool_1", "arguments": '{"path": "notes.txt"}'}}
        messages += [
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": text_of(100, turn)},
            {"role": "user", "content": "And what follows?"},
        ]
    return found


async def other(client: httpx.AsyncClient, model: str, number: int, reply_tokens: int) -> None:
    """Asks until it is cancelled."""
    count = 0
    while True:
        count += 1
        prompt = text_of(OTHERS_TOKENS, 10_000 * (number + 1) + count)
        await ask(client, {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": reply_tokens})


async def measure(args: argparse.Namespace) -> None:
    timeout = httpx.Timeout(args.timeout_s)
    async with httpx.AsyncClient(
        base_url=args.base_url.rstrip("/") + "/", timeout=timeout, limits=httpx.Limits(max_connections=None)
    ) as client:
        await ask(client, {"model": args.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})  # loads the model
        print("| others | turn | prompt tokens | cached tokens | TTFT s | whole s |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for others in args.others:
            busy = [asyncio.create_task(other(client, args.model, number, args.reply_tokens)) for number in range(others)]
            try:
                turns = await agent(client, args.model, args.tokens, args.turns, 1 + others, args.reply_tokens)
            finally:
                for task in busy:
                    task.cancel()
                await asyncio.gather(*busy, return_exceptions=True)
            for number, turn in enumerate(turns, 1):
                print(f"| {others} | {number} | {turn.prompt} | {turn.cached} | {turn.ttft_s:.2f} | {turn.total_s:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=30_000, help="of system and tools together, about")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 4], help="clients at work meanwhile, one run for each number")
    parser.add_argument("--reply-tokens", type=int, default=32)
    parser.add_argument("--timeout-s", type=float, default=1800.0)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
