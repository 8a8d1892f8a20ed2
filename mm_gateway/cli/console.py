"""Asking a model from the terminal: one question, or a conversation; the answer streams to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence

from mm_gateway.catalog import Catalog
from mm_gateway.core import ChatInput, GenerationConfig, GenerationRequest, Message, Progress, TextDelta
from mm_gateway.errors import GatewayError
from mm_gateway.work_pools import WorkPool

_LINES = WorkPool("lines", 1)
"""Waits for the person."""
HELP = "/reset starts over, /exit or Ctrl-D ends, Ctrl-C stops an answer"


async def answer(catalog: Catalog, model: str, messages: Sequence[Message], config: GenerationConfig) -> str:
    """Stream one answer to stdout and return it.

    Raises:
        GatewayError: as the backend does.
    """
    request = GenerationRequest(request_id="console", model=model, input=ChatInput(tuple(messages)), config=config)
    pieces: list[str] = []
    shown = ""
    async with contextlib.aclosing(catalog.resolve(model).generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Progress():
                    shown = _show_progress(event, shown)
                case TextDelta(text=text):
                    shown = _clear(shown)
                    pieces.append(text)
                    sys.stdout.write(text)
                    sys.stdout.flush()
    _clear(shown)
    sys.stdout.write("\n")
    sys.stdout.flush()
    return "".join(pieces)


async def chat(catalog: Catalog, model: str, system: str | None, config: GenerationConfig, read_line: Callable[[str], str] = input) -> None:
    """A conversation that ends with /exit or end of file. Errors of a turn are shown, and the turn is forgotten."""
    beginning = [Message(role="system", content=system)] if system else []
    messages = list(beginning)
    print(f"{model}: {HELP}", file=sys.stderr)
    while True:
        try:
            line = (await _LINES.run(read_line, "> ")).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line in ("/exit", "/quit"):
            return
        if line == "/reset":
            messages = list(beginning)
            continue
        if not line:
            continue
        turn = Message(role="user", content=line)
        task = asyncio.create_task(answer(catalog, model, [*messages, turn], config))
        try:
            text = await _interruptible(task)
        except GatewayError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if text is None:
            print(file=sys.stderr)
            continue
        messages += [turn, Message(role="assistant", content=text)]


async def _interruptible(task: asyncio.Task[str]) -> str | None:
    """The task's result; None where Ctrl-C stopped it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)


def _show_progress(progress: Progress, shown: str) -> str:
    text = progress.detail or progress.stage
    if not sys.stderr.isatty():
        return ""
    sys.stderr.write("\r" + text.ljust(len(shown)))
    sys.stderr.flush()
    return text


def _clear(shown: str) -> str:
    if shown:
        sys.stderr.write("\r" + " " * len(shown) + "\r")
        sys.stderr.flush()
    return ""
