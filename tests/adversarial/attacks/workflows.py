"""Sessions, stored responses, searches and pages: what waits for a disk, a network or a parser."""

from __future__ import annotations

import asyncio
import contextlib

from tests.adversarial.attack import CHAT, OK, REFUSED, RESPONSES, SERVED_OR_REFUSED, Attack, Json, Target, asking, chat, posting

SESSION, SEARCH, LESSON = "mm-orch/chat-generate@mock", "mm-orch/search-qa@mock", "mm-orch/lesson-pack@mock"


async def _locked_storage(target: Target) -> list[int]:
    """Another process holds SQLite's lock while eight responses are stored; a chat stores nothing, and must not wait."""
    await target.post(RESPONSES, {"model": "mock", "input": "x"})  # the file is there from the first on
    lock = await asyncio.to_thread(target.locked_storage)
    try:
        stored = [asyncio.ensure_future(target.post(RESPONSES, {"model": "mock", "input": "x"})) for _ in range(8)]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(5):
            statuses = [await target.post(CHAT, asking(max_tokens=2)), await target.post(CHAT, chat())]
        statuses += await asyncio.gather(*stored)
    finally:
        lock.close()
    return statuses


async def _locked_sessions(target: Target) -> list[int]:
    await target.post(CHAT, chat(model=SESSION, metadata={"session_id": "locked"}))
    lock = await asyncio.to_thread(target.locked_storage)
    try:
        turns = [asyncio.ensure_future(target.post(CHAT, chat(model=SESSION, metadata={"session_id": f"locked{i}"}))) for i in range(8)]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(5):
            statuses = [await target.post(CHAT, asking(max_tokens=2))]
        statuses += await asyncio.gather(*turns)
    finally:
        lock.close()
    return statuses


async def _one_session(target: Target) -> list[int]:
    """They take turns; half hang up meanwhile."""
    body = chat("!mock tokens=5", SESSION, metadata={"session_id": "crowded"})
    hang_ups = [target.hang_up(CHAT, body, after_s=0.01 * i) for i in range(50)]
    statuses, _ = await asyncio.gather(target.posts(CHAT, [body] * 50), asyncio.gather(*hang_ups))
    return statuses


async def _many_sessions(target: Target) -> list[int]:
    return await target.posts(CHAT, [chat("x", SESSION, metadata={"session_id": f"s{i}"}) for i in range(300)])


async def _long_session(target: Target) -> list[int]:
    """Turns that together are far beyond what a session keeps."""
    return [await target.post(CHAT, chat("word " * 20_000, SESSION, metadata={"session_id": "long"})) for _ in range(20)]


async def _chain(target: Target) -> list[int]:
    """Each response continues the one before."""
    previous: Json = None
    for _ in range(60):
        reply = await target.client.post(RESPONSES, json={"model": "mock", "input": "x " * 200, "previous_response_id": previous})
        if reply.status_code != 200:
            return [reply.status_code]
        previous = reply.json()["id"]
    return [200, (await target.client.get(f"{RESPONSES}/{previous}/input_items?limit=100")).status_code]


async def _strange_ids(target: Target) -> list[int]:
    ids = ["resp_x", "%00", "..%2f..", "a" * 8000, "%F0%9F%98%80", "' OR 1=1 --"]
    statuses = [(await target.client.get(f"{RESPONSES}/{one}")).status_code for one in ids]
    statuses += [(await target.client.delete(f"{RESPONSES}/{one}")).status_code for one in ids]
    queries = ("limit=99999999999999999999", "limit=-1", "after=" + "x" * 5000, "order=sideways")
    return statuses + [(await target.client.get(f"{RESPONSES}/resp_x/input_items?{query}")).status_code for query in queries]


async def _silent_searches(target: Target) -> list[int]:
    """Twenty searches that nobody answers; a chat must not wait for them."""
    searches = [asyncio.ensure_future(target.post(CHAT, chat(f"silent {i}", SEARCH))) for i in range(20)]
    try:
        await asyncio.sleep(0.5)
        async with asyncio.timeout(5):
            return [await target.post(CHAT, asking(max_tokens=2)), await target.post(CHAT, chat())]
    finally:
        for search in searches:
            search.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*searches, return_exceptions=True)


async def _pages_at_a_time(target: Target) -> list[int]:
    statuses = await target.posts(CHAT, [chat("attributes", SEARCH) for _ in range(6)])
    return [*statuses, await target.post(CHAT, chat("plain", SEARCH))]


async def _abandoned_pages(target: Target) -> list[int]:
    await asyncio.gather(*(target.hang_up(CHAT, chat("attributes", SEARCH), after_s=1.0) for _ in range(10)))
    return [await target.post(CHAT, chat("plain", SEARCH))]


def _page(name: str, query: str, *, quick: bool = False) -> Attack:
    return posting(f"S6 a page: {name}", lambda: chat(query, SEARCH), SERVED_OR_REFUSED | {502, 503, 504}, quick=quick)


WORKFLOWS = (
    Attack("S5 another process locks what is stored: responses", _locked_storage, OK | {503}, quick=True),
    Attack("S5 another process locks what is stored: sessions", _locked_sessions, OK | {503}),
    Attack("S5 twenty searches that nobody answers", _silent_searches, OK, quick=True),
    _page("150,000 attributes", "attributes", quick=True),
    _page("100,000 open tags", "tags"),
    _page("a table of 100,000 cells", "cells"),
    _page("1.9 MB without a space", "line"),
    _page("50,000 links", "links"),
    _page("entities without end", "entities"),
    _page("a PDF that is none", "pdf"),
    _page("compressed, and a thousand times as large", "bomb"),
    _page("a byte now and then", "slow"),
    Attack("S6 six such pages at a time, then a plain one", _pages_at_a_time, SERVED_OR_REFUSED | {502, 503, 504}, limit_s=120),
    Attack("S6 ten who hang up on such pages, then a plain one", _abandoned_pages, SERVED_OR_REFUSED | {502, 503, 504}, limit_s=120),
    posting("search-qa: a question of 10 MB", lambda: chat("why " * 2_500_000, SEARCH), SERVED_OR_REFUSED | {502, 503}),
    posting(
        "search-qa: a question in another syntax", lambda: chat('plain" OR NEAR(a b) * ^ NOT -( col:', SEARCH), SERVED_OR_REFUSED | {502}
    ),
    posting(
        "search-qa: parameters of the wrong kind",
        lambda: chat("plain", SEARCH, workflow={"max_results": 10**30, "language": [], "x": {}}),
        REFUSED,
    ),
    posting("lesson-pack: a topic of 5 MB", lambda: chat("topic " * 800_000, LESSON)),
    posting("lesson-pack: 20 exercises of nothing", lambda: chat("\n" * 1000 + "x", LESSON, workflow={"num_exercises": 20})),
    posting("lesson-pack: of itself", lambda: chat("x", "mm-orch/lesson-pack@mm-orch/lesson-pack@mock"), REFUSED | {404}),
    posting("chat-generate: a session's name of 1 MB", lambda: chat("x", SESSION, workflow={"session_id": "s" * 1_000_000})),
    posting("chat-generate: a turn of 15 MB", lambda: chat("word " * 3_000_000, SESSION, metadata={"session_id": "huge"})),
    Attack("chat-generate: 100 in one session, half hang up", _one_session, OK | {429}, limit_s=120, quick=True),
    Attack("chat-generate: 300 sessions at a time", _many_sessions, OK | {429}, limit_s=120),
    Attack("chat-generate: a session of 2 MB", _long_session, SERVED_OR_REFUSED, limit_s=120),
    Attack("responses: a chain of 60", _chain, OK),
    Attack("responses: ids of nobody", _strange_ids, frozenset({400, 404, 405}), quick=True),
    posting("responses: a conversation of 900 kB, stored", lambda: {"model": "mock", "input": "word " * 180_000}, path=RESPONSES),
    posting("responses: a conversation of 10 MB, stored", lambda: {"model": "mock", "input": "word " * 2_000_000}, REFUSED, path=RESPONSES),
)
