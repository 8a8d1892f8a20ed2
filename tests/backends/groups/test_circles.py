"""Gateways that name each other in a circle, on real sockets: a request ends, by whoever is left to answer it or with a clear error."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from compat_tests.support.gateways import free_port
from mm_gateway.api.app import create_app
from mm_gateway.backends.groups.backend import Group
from mm_gateway.backends.upstream.hops import Hop, came_through
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from tests.support.served import served

MOCK = ModelConfig(model_name="mock", backend="mock")


def group_of(*members: str) -> ModelConfig:
    routing = GroupRouting(retry_delay_s=0.001, max_wait_s=2.0, probe_interval_s=None)
    return ModelConfig(
        model_name="all", backend="group", strategy="fallback", members=tuple(GroupMember(name=name) for name in members), routing=routing
    )


def at(port: int, model: str) -> ModelConfig:
    return ModelConfig(model_name=model, backend="remote", base_url=f"http://127.0.0.1:{port}/v1")


@asynccontextmanager
async def gateways(models: dict[int, dict[str, ModelConfig]]) -> AsyncIterator[dict[int, Any]]:
    """port -> entries by name. Yields their catalogs."""
    async with AsyncExitStack() as stack:
        catalogs: dict[int, Any] = {}
        for port, entries in models.items():
            settings = Settings(models=entries)
            catalogs[port] = build_catalog(settings)
            stack.enter_context(served(create_app(settings, catalogs[port]), port=port))
        yield catalogs


async def ask(port: int, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)


@pytest.mark.parametrize("stream", [False, True])
async def test_groups_of_each_other_answer_with_an_error_and_stay_in_use(stream: bool) -> None:
    a, b = free_port(), free_port()
    models = {a: {"all": group_of("b"), "b": at(b, "all")}, b: {"all": group_of("a"), "a": at(a, "all")}}
    async with gateways(models) as catalogs:
        for _ in range(4):  # more than eject a member in trouble
            reply = await ask(a, "all", stream=stream)
            assert reply.status_code == 508
            assert reply.json()["error"]["code"] == "loop_detected"
            assert "name each other" in reply.json()["error"]["message"]
        for catalog in catalogs.values():
            group = catalog.resolve("all")
            assert isinstance(group, Group)
            assert [member.health.state(0.0) for member in group.router.members.values()] == ["healthy"]


async def test_entries_without_groups_that_name_each_other_end_too() -> None:
    a, b = free_port(), free_port()
    async with gateways({a: {"m": at(b, "m")}, b: {"m": at(a, "m")}}):
        assert (await ask(b, "m")).json()["error"]["code"] == "loop_detected"


async def test_a_gateway_that_names_itself_ends_too() -> None:
    a = free_port()
    async with gateways({a: {"m": at(a, "m")}}):
        assert (await ask(a, "m")).status_code == 508


@pytest.mark.parametrize("asked", ["a", "b"])
async def test_in_a_circle_whoever_is_left_answers(asked: str) -> None:
    a, b = free_port(), free_port()
    models = {a: {"all": group_of("b"), "b": at(b, "all")}, b: {"all": group_of("a", "mock"), "a": at(a, "all"), "mock": MOCK}}
    async with gateways(models):
        reply = await ask({"a": a, "b": b}[asked], "all")
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"]


async def test_a_request_may_pass_a_gateway_twice_where_it_ends() -> None:
    a, b = free_port(), free_port()
    async with gateways({a: {"out": at(b, "back"), "mock": MOCK}, b: {"back": at(a, "mock")}}):
        assert (await ask(a, "out")).status_code == 200


def test_a_server_is_told_of_gateways_alone_whatever_a_client_says_of_others() -> None:
    came_through([(b"via", b"1.1 proxy.internal, 1.1 mm-gateway-0123456789abcdef"), (b"host", b"x")])
    hop = Hop()
    assert re.fullmatch("1.1 mm-gateway-0123456789abcdef, 1.1 mm-gateway-[0-9a-f]{16}", hop.header()["via"])
    assert not hop.was_taken()
    came_through([(b"via", hop.header()["via"].encode())])
    assert hop.was_taken() and not Hop().was_taken()
