"""Long texts wait for each other, short ones do not wait for them, and nobody's is read who has left."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mm_gateway.api.app import create_app
from mm_gateway.backends.mock import backend as mock
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.work_pools import LONG_TEXT_CHARACTERS, LONG_TEXTS
from tests.support.served import post, raw_reply, served, until

SETTINGS = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")})


def asks(path: str, text: str) -> bytes:
    fields = {"prompt": text} if path == "/tokenize" else {"messages": [{"role": "user", "content": text}]}
    return post(path, json.dumps({"model": "mock", **fields}).encode())


@contextmanager
def held() -> Iterator[threading.Event]:
    """Whoever has a long text waits until this is set."""
    free = threading.Event()
    LONG_TEXTS._executor.submit(free.wait, 30)
    try:
        yield free
    finally:
        free.set()


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions"])
async def test_a_short_text_does_not_wait_behind_long_ones(path: str) -> None:
    app = create_app(SETTINGS, build_catalog(SETTINGS))
    with served(app) as port, held() as free:
        long = [asyncio.create_task(raw_reply(port, asks(path, "word " * LONG_TEXT_CHARACTERS))) for _ in range(4)]
        await until(lambda: app.state.admission.live.inside == 4)
        assert (await raw_reply(port, asks(path, "Hello")))[0] == 200
        assert not any(task.done() for task in long)
        free.set()
        assert {(await task)[0] for task in long} <= {200, 400}


async def test_the_text_of_a_client_that_left_is_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noted(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        read.append(len(text))
        return (), ()

    monkeypatch.setattr(mock, "tokens_of", noted)
    app = create_app(SETTINGS, build_catalog(SETTINGS))
    with served(app) as port, held() as free:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asks("/tokenize", "left " * LONG_TEXT_CHARACTERS))
        await until(lambda: app.state.admission.live.inside == 1)
        writer.close()
        await until(lambda: app.state.admission.live.inside == 0)
        free.set()
        assert (await raw_reply(port, asks("/tokenize", "stay" * LONG_TEXT_CHARACTERS)))[0] == 200
    assert read == [4 * LONG_TEXT_CHARACTERS]
