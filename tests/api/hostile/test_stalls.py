"""What is large keeps nobody else waiting: bodies that are read, replies that are written."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from mm_gateway.api import chat
from mm_gateway.api.endpoint import LARGE_BODY_BYTES
from mm_gateway.core import ChoiceFinished, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, Usage
from tests.support.large_bodies import CHAT, RESPONSES, SENT, TEXT, USER, calls, function_items, nested
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.stalls import stalls

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
LONGEST_STALL_S = 0.25

LARGE: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "results in reverse order": (CHAT, lambda: {"messages": calls(7000)}),
    "too many calls": (CHAT, lambda: {"messages": calls(20_000, 20_000)}),
    "logit_bias": (CHAT, lambda: {"logit_bias": dict.fromkeys(map(str, range(1_000_000)), 1)}),
    "messages": (CHAT, lambda: {"messages": [USER] * 100_000}),
    "stops": (CHAT, lambda: {"stop": ["a" * 1_000_000] * 4}),
    "objects": (CHAT, lambda: {"workflow": {"a": [{}] * 4_000_000}}),
    "quotes": (CHAT, lambda: {"user": '"\\' * 4_000_000}),
    "depth": (CHAT, lambda: {"workflow": {"a": [nested(90)] * 2000}}),
    "items": (RESPONSES, lambda: {"input": function_items(8000), "store": False}),
    "too many items": (RESPONSES, lambda: {"input": function_items(30_000)}),
    "ids": ("/detokenize", lambda: {"tokens": [1] * 3_000_000}),
    "prompts of ids": (TEXT, lambda: {"prompt": [[1] * 3000] * 2048}),
}


@pytest.fixture
def small_heap() -> Iterator[None]:
    """What the tests have loaded is left out of garbage collections, as it is in a server, which holds less."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("name", LARGE)
async def test_a_large_body_keeps_nobody_waiting(name: str) -> None:
    path, fields = LARGE[name]
    body = json.dumps({"model": "scripted", **SENT[path], **fields()}, separators=(",", ":")).encode()
    # In the loop of the test, which is the one that is watched.
    transport = httpx.ASGITransport(app_over(ScriptedBackend(ANSWER)))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client, stalls() as seen:
        reply = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400)
    assert seen.longest_cpu_s < LONGEST_STALL_S


def echo(tokens: int) -> TextDelta:
    """A prompt that is scored: one event, however long it is."""
    top = tuple((f"other {rank}", tuple(b"other"), -1.0 - rank) for rank in range(20))
    return TextDelta(0, "token" * tokens, logprobs=(TokenLogprob("token", tuple(b"token"), -0.5, top),) * tokens)


REPLIES: dict[str, tuple[str, dict[str, Any], list[GenerationEvent]]] = {
    "chat": (CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 10}, [echo(10_000)]),
    "completions": (TEXT, {"logprobs": 20, "echo": True}, [echo(10_000)]),
    "responses": (RESPONSES, {"top_logprobs": 20, "max_output_tokens": 10, "store": False}, [echo(10_000)]),
    "a long call": (
        CHAT,
        {},
        [ToolCallDelta(0, 0, id="c", name="f"), *[ToolCallDelta(0, 0, arguments="argument " * 10)] * 30_000],
    ),
}


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", REPLIES)
async def test_a_large_reply_keeps_nobody_waiting(name: str, stream: bool) -> None:
    path, fields, events = REPLIES[name]
    if stream and name == "a long call":
        pytest.skip("a stream sends each piece by itself")
    transport = httpx.ASGITransport(app_over(ScriptedBackend([*events, *ANSWER[1:]])))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client, stalls() as seen:
        reply = await client.post(path, json={"model": "scripted", **SENT[path], **fields, "stream": stream})
    assert reply.status_code == 200, reply.text[:300]
    assert len(reply.content) > 1_000_000
    assert seen.longest_cpu_s < LONGEST_STALL_S


async def test_small_bodies_are_read_where_they_come_and_large_ones_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read = chat.chat_request

    def noted(body: Any, id: str, ignored: list[str], **given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read(body, id, ignored, **given)

    monkeypatch.setattr(chat, "chat_request", noted)
    transport = httpx.ASGITransport(app_over(ScriptedBackend(ANSWER)))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for size in (100, LARGE_BODY_BYTES):
            assert (await client.post(CHAT, json={"model": "scripted", "messages": [USER], "user": "x" * size})).status_code == 200
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("bodies")
