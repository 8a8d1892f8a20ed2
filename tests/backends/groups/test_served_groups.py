"""Groups behind the whole gateway, before servers on real sockets that die, refuse, stall and talk nonsense."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.backends.groups.backend import Group, group
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from tests.support.served import served, until
from tests.support.upstream_server import Answer, Upstream, kept_alive, sse_body, upstream

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
QUICK = GroupRouting(retry_delay_s=0.001, max_wait_s=2.0, probe_interval_s=None)
IMPATIENT = GroupRouting(first_token_timeout_s=1.5, probe_interval_s=None)
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]


def says(text: str) -> bytes:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    return kept_alive(sse_body([{"choices": [{"index": 0, "delta": {"content": text}}], "system_fingerprint": f"fp-{text}"}, end, usage]))


def refuses(status: int, message: str = "no", headers: str = "", **error: Any) -> bytes:
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def stalls(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


class Fleet:
    """A group called `all` behind a gateway, and clients of it. seen: what came to each member."""

    def __init__(self, port: int, group: Group, seen: dict[str, Upstream]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.group = group
        self.seen = seen
        self.openai = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="k", max_retries=0)

    def asked(self) -> dict[str, int]:
        return {name: len(seen.requests) for name, seen in self.seen.items()}

    async def text(self) -> str | None:
        reply = await self.openai.chat.completions.create(model="all", messages=HELLO)
        assert reply.model == "all"
        return reply.choices[0].message.content


@asynccontextmanager
async def fleet(
    *, strategy: Strategy = "fallback", routing: GroupRouting = QUICK, contexts: dict[str, int] | None = None, **answers: Answer
) -> AsyncIterator[Fleet]:
    """answers: of each member's server."""
    async with AsyncExitStack() as stack:
        backends: dict[str, Backend] = {}
        seen: dict[str, Upstream] = {}
        for name, answer in answers.items():
            context = (contexts or {}).get(name)
            backends[name], seen[name] = await stack.enter_async_context(upstream(answer, max_context_length=context))
        members = tuple(GroupMember(name=name) for name in answers)
        config = ModelConfig(model_name="all", backend="group", members=members, strategy=strategy, routing=routing)
        found = group("all", config, backends, 0)
        catalog = Catalog({"all": found, **backends})
        settings = Settings(server=ServerSettings(admin_keys=("operator",)))
        with served(create_app(settings, catalog)) as port:
            all = Fleet(port, found, seen)
            async with all.openai:
                yield all


@pytest.mark.parametrize(
    "trouble",
    [
        refuses(500),
        refuses(503, headers="retry-after: 1\r\n"),
        refuses(429, headers="retry-after: 60\r\n"),
        refuses(429),
        refuses(401),
        refuses(404, code="model_not_found"),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
        STREAM + b"data: {no json}\n\n",
        STREAM + sse_body([{"error": {"message": "died"}}]),
        STREAM + sse_body([{"choices": [], "system_fingerprint": "fp-broken"}], done=False),
        b"",
        stalls,
    ],
    ids=lambda trouble: trouble.__name__ if callable(trouble) else repr(trouble),
)
async def test_whatever_fails_before_the_first_token_another_member_answers(trouble: Answer) -> None:
    async with fleet(a=trouble, b=says("b"), routing=IMPATIENT if trouble is stalls else QUICK) as all:
        reply = await all.openai.chat.completions.create(model="all", messages=HELLO)
        assert reply.choices[0].message.content == "b"
        assert reply.system_fingerprint == "fp-b", "nothing is told of a member that did not reply"
        assert all.asked() == {"a": 1, "b": 1}


@pytest.mark.parametrize("wrong", [refuses(400, "bad temperature", param="temperature"), refuses(422), refuses(413)])
async def test_a_wrong_request_is_refused_by_the_first_and_asked_once(wrong: bytes) -> None:
    async with fleet(a=wrong, b=says("b")) as all:
        for _ in range(5):
            with pytest.raises(openai.APIStatusError) as caught:
                await all.text()
            assert caught.value.status_code < 500
        assert all.asked() == {"a": 5, "b": 0}, "it tells nothing of the member's health"


async def test_a_failure_after_the_first_token_is_an_error_of_the_stream() -> None:
    begun = sse_body([{"choices": [{"index": 0, "delta": {"content": "Once"}}]}], done=False)
    async with fleet(a=STREAM + begun, b=says("b")) as all:
        text = ""
        with pytest.raises(openai.APIError, match="the reply was complete"):
            async for chunk in await all.openai.chat.completions.create(model="all", messages=HELLO, stream=True):
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert text == "Once"
        assert all.asked() == {"a": 1, "b": 0}


async def test_where_nobody_answers_a_503_says_who_and_why() -> None:
    async with fleet(a=refuses(500, "out of cheese"), b=b"") as all:
        with pytest.raises(openai.InternalServerError) as caught:
            await all.text()
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert "out of cheese" in caught.value.message
        assert "a: " in caught.value.message
        assert "b: " in caught.value.message
        assert "broke off" in caught.value.message


async def test_where_all_are_busy_a_429_says_when_to_come_back() -> None:
    async with fleet(a=refuses(429, headers="retry-after: 60\r\n"), b=refuses(429, headers="retry-after: 30\r\n")) as all:
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await all.text()
            assert 25 < int(caught.value.response.headers["retry-after"]) <= 30
        assert all.asked() == {"a": 1, "b": 1}, "nobody is asked who said not to"


async def test_a_limit_in_the_headers_is_kept_before_it_is_refused() -> None:
    headers = b"x-ratelimit-limit-requests: 100\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h40m0s\r\n"
    limited = says("a").replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n", 1)
    async with fleet(a=limited, b=says("b")) as all:
        assert [await all.text() for _ in range(3)] == ["a", "b", "b"]


async def test_a_member_that_fails_is_left_alone_and_comes_back() -> None:
    answers = [refuses(500)] * 3 + [says("a")] * 100

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
        writer.close()

    async with fleet(a=answer, b=says("b"), routing=GroupRouting(retry_delay_s=0.001, ejection_s=0.3, probe_interval_s=None)) as all:
        assert [await all.text() for _ in range(6)] == ["b"] * 6
        assert all.asked() == {"a": 3, "b": 6}
        card = (await all.openai.models.retrieve("all")).model_extra
        assert card is not None
        assert [member["health"] for member in card["details"]["members"]] == ["ejected", "healthy"]
        async with httpx.AsyncClient(base_url=all.url) as prometheus:
            lines = (await prometheus.get("/metrics")).text.splitlines()
        assert 'mm_gateway_group_ejections_total{member="a",model_name="all"} 1.0' in lines
        assert 'mm_gateway_group_requests_total{member="b",model_name="all"} 6.0' in lines
        assert 'mm_gateway_group_retries_total{model_name="all"} 3.0' in lines
        assert 'mm_gateway_group_member_asked{member="a",model_name="all"} 0.0' in lines
        await asyncio.sleep(0.35)
        assert [await all.text() for _ in range(3)] == ["a"] * 3


async def test_probes_notice_who_is_gone_before_a_request_does() -> None:
    routing = GroupRouting(probe_interval_s=0.05, eject_after=2, ejection_s=60.0)
    async with fleet(a=says("a"), b=says("b"), routing=routing) as all:
        assert await all.text() == "a"
        a = all.group.router.members["a"]
        await until(lambda: len(all.seen["a"].requests) > 3)
        asked = [line for line, *_ in all.seen["a"].requests if line.startswith("GET")]
        assert asked.count("GET /v1/models/their-name HTTP/1.1") == 1, "one that does not tell what it holds is not asked again"
        assert {*asked[2:]} <= {"GET /health HTTP/1.1"}
        assert a.health.ejected_until is None
        all.seen["a"].answer = refuses(503)
        await until(lambda: a.health.ejected_until is not None)
        assert await all.text() == "b"
        all.seen["a"].answer = says("a")
        await until(lambda: a.health.state(time.monotonic()) == "trying")
        assert await all.text() == "a"
        assert a.health.ejected_until is None


@pytest.mark.parametrize("card", [stalls, b"", refuses(500), kept_alive(b'{"state": "on fire"}'), kept_alive(b"\xff" * 100_000)])
async def test_what_a_server_tells_of_its_model_says_nothing_of_its_health(card: Answer) -> None:
    """One that hangs, refuses or answers nonsense where it is asked what it holds."""
    async with upstream(kept_alive(b"ok")) as (backend, seen):
        assert await backend.probe(10)
        seen.answer = card
        backend._server._tells_state = True  # as if it had told
        await backend._server._look_at_state(0.2 if card is stalls else 10)
        assert backend.info().state == "ready"
        assert backend._server._tells_state is (card in (stalls, b""))


async def test_a_member_whose_context_is_too_small_is_not_asked() -> None:
    async with fleet(a=says("a"), b=says("b"), contexts={"a": 100, "b": 10_000}) as all:
        models = {model.id: model.model_extra or {} for model in (await all.openai.models.list()).data}
        assert models["all"]["context_length"] == 100
        assert await all.text() == "a"
        long: list[Any] = [{"role": "user", "content": "word " * 1000}]
        reply = await all.openai.chat.completions.create(model="all", messages=long)
        assert reply.choices[0].message.content == "b"


async def test_one_that_finds_its_context_too_small_hands_on_to_a_larger_one() -> None:
    too_long = refuses(400, "This model's maximum context length is 1000 tokens.", code="context_length_exceeded")
    async with fleet(a=too_long, b=too_long, c=says("c"), contexts={"a": 1000, "b": 1000, "c": 2000}) as all:
        assert await all.text() == "c"
        assert all.asked() == {"a": 1, "b": 0, "c": 1}
    async with fleet(a=too_long, b=too_long) as all:
        with pytest.raises(openai.BadRequestError) as caught:
            await all.text()
        assert caught.value.code == "context_length_exceeded"
        assert all.asked() == {"a": 1, "b": 0}


async def test_every_endpoint_reaches_the_members_under_the_groups_name() -> None:
    async with fleet(a=refuses(500), b=says("b")) as all:
        response = await all.openai.responses.create(model="all", input="Hi")
        assert (response.output_text, response.model) == ("b", "all")
        completion = await all.openai.completions.create(model="all", prompt="Hi")
        assert completion.model == "all"
        async with anthropic.AsyncAnthropic(base_url=all.url, api_key="k", max_retries=0) as client:
            message = await client.messages.create(model="all", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
        assert (message.content[0].type, message.model) == ("text", "all")
    vectors = json.dumps({"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 2}}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(vectors)}\r\n\r\n"
    async with fleet(a=refuses(404), b=head.encode() + vectors) as all:
        found = await all.openai.embeddings.create(model="all", input="Hi", encoding_format="float")
        assert (found.data[0].embedding, found.model) == ([1.0, 0.0], "all")
        assert all.group.router.members["a"].failures == 0, "a server without embeddings is not in trouble"


async def test_a_drained_member_gets_no_new_requests_and_ends_its_own() -> None:
    go_on = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + sse_body([{"choices": [{"index": 0, "delta": {"content": "a"}}]}], done=False))
        await go_on.wait()
        writer.write(sse_body([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]))
        writer.close()

    async with (
        fleet(a=slow, b=says("b")) as all,
        httpx.AsyncClient(base_url=all.url, headers={"authorization": "Bearer operator"}) as admin,
    ):
        stream = await all.openai.chat.completions.create(model="all", messages=HELLO, stream=True)
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        assert (await admin.post("/admin/models/a/drain")).status_code == 200
        assert await all.text() == "b"
        card = (await admin.get("/v1/models/all")).json()
        assert [(member["draining"], member["running"]) for member in card["details"]["members"]] == [(True, 1), (False, 0)]
        go_on.set()
        assert [chunk.choices[0].finish_reason async for chunk in stream if chunk.choices][-1] == "stop"
        assert (await admin.post("/admin/models/b/drain")).status_code == 200
        with pytest.raises(openai.InternalServerError, match="a: it is drained; b: it is drained"):
            await all.text()
        assert (await admin.post("/admin/models/b/resume")).status_code == 200
        assert await all.text() == "b"
        refused = await admin.post("/admin/models/all/drain")
        assert (refused.status_code, "member of no group" in refused.text) == (400, True)


async def test_fifty_streams_over_three_servers_of_which_one_dies() -> None:
    whole = "".join(f"{number} " for number in range(20))
    may_begin, may_end = asyncio.Event(), asyncio.Event()
    may_begin.set()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await may_begin.wait()
        writer.write(STREAM)
        for number in range(20):
            writer.write(sse_body([{"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}], done=False))
            if number == 10:
                await may_end.wait()
        writer.write(sse_body([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]))
        writer.close()

    async with fleet(a=slow, b=slow, c=slow, strategy="least-loaded", routing=GroupRouting(probe_interval_s=None)) as all:
        begun: list[None] = []

        async def client() -> tuple[str, str]:
            """What came, and the error that ended it."""
            text, ids, said = "", set[str](), ""
            try:
                async for chunk in await all.openai.chat.completions.create(model="all", messages=HELLO, stream=True):
                    ids.add(chunk.id)
                    assert chunk.model == "all"
                    if not text:
                        begun.append(None)
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            except openai.APIError as error:
                said = str(error)
            assert len(ids) == 1
            return text, said

        first = [asyncio.create_task(client()) for _ in range(25)]
        await until(lambda: len(begun) >= 25)
        may_begin.clear()
        then = [asyncio.create_task(client()) for _ in range(25)]
        await until(lambda: sum(all.asked().values()) == 50)
        hit = all.group.router.members["b"].running
        await all.seen["b"].die()
        may_begin.set()
        may_end.set()
        ended = await asyncio.gather(*first, *then)
        cut = [(text, said) for text, said in ended if said]
        assert all_whole([text for text, said in ended if not said], whole)
        assert 16 <= hit <= 17
        assert 8 <= len(cut) <= 9, "those that had no token yet were sent elsewhere"
        assert all_told(cut, whole)
        after = await asyncio.gather(*(client() for _ in range(10)))
        assert all_whole([text for text, _ in after], whole)
        assert all.group.router.members["b"].health.ejected_until is not None


def all_whole(texts: list[str], whole: str) -> bool:
    return {*texts} == {whole}


def all_told(cut: list[tuple[str, str]], whole: str) -> bool:
    """Each stream that broke off has a beginning of the text, and an error that says whose fault it is."""
    return all(text and whole.startswith(text) and "The upstream server of far" in error for text, error in cut)


async def test_a_group_of_local_models_is_read_here_and_one_of_both_too() -> None:
    settings = Settings(
        models={
            "one": ModelConfig(model_name="one", backend="mock"),
            "two": ModelConfig(model_name="two", backend="mock"),
            "inner": ModelConfig(model_name="inner", backend="group", members=(GroupMember(name="one"), GroupMember(name="two"))),
            "outer": ModelConfig(model_name="outer", backend="group", members=(GroupMember(name="inner"),)),
        }
    )
    with served(create_app(settings, build_catalog(settings))) as port:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0) as client:
            for name in ("inner", "outer"):
                reply = await client.chat.completions.create(model=name, messages=HELLO)
                assert reply.model == name
                with pytest.raises(openai.BadRequestError, match="unknown_thing"):
                    await client.chat.completions.create(model=name, messages=HELLO, extra_body={"unknown_thing": 1})
            answer = await client.chat.completions.create(model="mm-orch/chat-generate@outer", messages=HELLO)
            assert answer.choices[0].message.content
            failing: list[Any] = [{"role": "user", "content": "!mock error=500"}]
            with pytest.raises(openai.InternalServerError, match=r"No member of outer can answer now \(inner: No member of inner"):
                await client.chat.completions.create(model="outer", messages=failing)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as plain:
            counted = await plain.post("/tokenize", json={"model": "outer", "prompt": "Hi there"})
        assert counted.json()["count"] == 2
