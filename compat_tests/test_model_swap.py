"""More models than fit, many clients: every reply complete and right, though models come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from compat_tests.support.gateways import Gateway, free_port, make_checkpoint, start_gateway, stop_gateway

FAMILIES = ("gpt2", "llama", "qwen2")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Three models, room for one."""
    folder = tmp_path_factory.mktemp("crowded")
    paths: dict[str, Path] = {family: make_checkpoint(folder / family, family) for family in FAMILIES}
    models = {name: {"model_name": name, "path": str(path), "device": "cpu", "chat_template": "chatml"} for name, path in paths.items()}
    gateway = start_gateway(folder, models, free_port(), MM_GATEWAY_MEMORY_MAX_CACHED_MODELS="1")
    yield gateway
    stop_gateway(gateway)


async def ask(client: openai.AsyncOpenAI, model: str, *, stream: bool) -> str:
    messages = [{"role": "user", "content": f"Tell me of {model}"}]
    options = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}
    if not stream:
        reply = await client.chat.completions.create(**options)
        return reply.choices[0].message.content
    chunks = await client.chat.completions.create(**options, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def test_64_clients_in_random_order_over_three_models_with_room_for_one(crowded: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{crowded.address}/v1", api_key="none", max_retries=0, timeout=120) as client:
        expected = {model: await ask(client, model, stream=False) for model in FAMILIES}
        order = [FAMILIES[index % 3] for index in range(64)]
        random.Random(0).shuffle(order)
        replies = await asyncio.gather(*(ask(client, model, stream=index % 2 == 0) for index, model in enumerate(order)))
        assert replies == [expected[model] for model in order]
        listed = {model.id: model.model_dump() for model in (await client.models.list()).data}
    # All 64 were served within few loads, because requests of one model are served together.
    assert sum(entry["backend"] == "local" and entry["state"] in ("ready", "busy") for entry in listed.values()) == 1
    assert crowded.log.read_text().count(": ready, weights") <= 12


async def test_clients_that_leave_while_their_model_loads_block_nobody(crowded: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{crowded.address}/v1", api_key="none", max_retries=0, timeout=120) as client:
        leaving = [asyncio.create_task(ask(client, FAMILIES[index % 3], stream=True)) for index in range(12)]
        await asyncio.sleep(0.05)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        for model in FAMILIES:
            assert await ask(client, model, stream=False)
