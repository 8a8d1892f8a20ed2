"""Asking a model from the terminal: one question, or a conversation; the answer streams to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence

from mm_gateway.catalog import Catalog
from mm_gateway.core import ChatInput, GenerationConfig, GenerationRequest, Message, Progress, ReasoningDelta, TextDelta
from mm_gateway.errors import GatewayError
from mm_gateway.work_pools import WorkPool

_LINES = WorkPool("lines", 1)
"""Waits for the person."""
HELP = "/reset starts over, /thoughts shows or hides what the model thinks, /exit or Ctrl-D ends, Ctrl-C stops an answer"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


async def answer(
    catalog: Catalog, model: str, messages: Sequence[Message], config: GenerationConfig, *, thoughts: bool | None = None
) -> Message:
    """Stream one answer to stdout and return it with what was thought before it.

    Args:
        thoughts: whether to show them, on stderr; None: where that is a terminal.

    Raises:
        GatewayError: as the backend does.
    """
    told = _Thoughts(sys.stderr.isatty() if thoughts is None else thoughts)
    request = GenerationRequest(request_id="console", model=model, input=ChatInput(tuple(messages)), config=config)
    pieces: list[str] = []
    shown = ""
    async with contextlib.aclosing(catalog.resolve(model).generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Progress():
                    shown = _show_progress(event, shown)
                case ReasoningDelta(text=text):
                    shown = _clear(shown)
                    told.add(text)
                case TextDelta(text=text):
                    shown = _clear(shown)
                    told.end()
                    pieces.append(text)
                    sys.stdout.write(text)
                    sys.stdout.flush()
    _clear(shown)
    told.end()
    sys.stdout.write("\n")
    sys.stdout.flush()
    return Message(role="assistant", content="".join(pieces), reasoning="".join(told.pieces) or None)


class _Thoughts:
    """Thoughts on their way to stderr, dim in a terminal; where they are hidden, one line says that there are some."""

    def __init__(self, shown: bool) -> None:
        self.pieces: list[str] = []
        self._shown = shown
        self._terminal = sys.stderr.isatty()
        self._open = False

    def add(self, text: str) -> None:
        self.pieces.append(text)
        if not self._open:
            self._open = True
            if self._terminal:
                self._write(_DIM if self._shown else f"{_DIM}thinking…")
        if self._shown:
            self._write(text)

    def end(self) -> None:
        """Nothing more of this thought comes."""
        if self._open:
            self._open = False
            if self._shown or self._terminal:
                self._write(f"{_PLAIN}\n" if self._terminal else "\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


async def chat(catalog: Catalog, model: str, system: str | None, config: GenerationConfig, read_line: Callable[[str], str] = input) -> None:
    """A conversation that ends with /exit or end of file. Errors of a turn are shown, and the turn is forgotten."""
    beginning = [Message(role="system", content=system)] if system else []
    messages = list(beginning)
    thoughts = True
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
        if line == "/thoughts":
            thoughts = not thoughts
            print(f"thoughts are {'shown' if thoughts else 'hidden'}", file=sys.stderr)
            continue
        if not line:
            continue
        turn = Message(role="user", content=line)
        task = asyncio.create_task(answer(catalog, model, [*messages, turn], config, thoughts=thoughts))
        try:
            reply = await _interruptible(task)
        except GatewayError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if reply is None:
            print(file=sys.stderr)
            continue
        messages += [turn, reply]


async def _interruptible(task: asyncio.Task[Message]) -> Message | None:
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
