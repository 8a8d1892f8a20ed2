"""Threads for blocking work, a pool a kind, so that no kind can starve another; knows nothing of what the work is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mm_gateway.freed_memory import give_back_memory

P = ParamSpec("P")
T = TypeVar("T")


_abandoned: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class AbandonedError(Exception):
    """Nobody waits for this piece of work any more."""


def check_wanted() -> None:
    """For work that takes long, between its parts.

    Raises:
        AbandonedError: whoever waited for it has left.
    """
    abandoned = _abandoned.get()
    if abandoned is not None and abandoned.is_set():
        raise AbandonedError


class WorkPool:
    """Runs one kind of work, first come first served. Threads start when they are needed.

    Args:
        kind: names the threads. threads: pieces of work at a time, >= 1. trims: it takes so much memory that what was freed is given back
            to the system after each piece, which takes milliseconds.
    """

    def __init__(self, kind: str, threads: int, *, trims: bool = False) -> None:
        self._trims = trims
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=kind)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. Cancelled while it waits for a thread, it never begins; once begun, it ends at its next `check_wanted`."""
        abandoned = threading.Event()
        context = contextvars.copy_context()
        context.run(_abandoned.set, abandoned)
        work = functools.partial(context.run, function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._trimmed, work)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def _trimmed(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            if self._trims:
                give_back_memory()


BODIES = WorkPool("bodies", 1)
"""Decoding and checking large request bodies, folding large replies."""
ENCODING = WorkPool("encoding", 2)
"""Rendering chat templates, tokenizing."""
LONG_TEXTS = WorkPool("long-texts", 1, trims=True)
"""The same of texts that take a tenth of a second and more: a dozen of them must not be what a short question waits for. A tokenizer makes
some 200 bytes of each token.
"""
LONG_TEXT_CHARACTERS = 32 * 2**10
GRAMMARS = WorkPool("grammars", 2)
STORAGE = WorkPool("storage", 4)
"""Sessions, responses, keys, usage, limits: more would wait for each other in SQLite, and hold connections to a server."""
DOCUMENTS = WorkPool("documents", 2)
"""Ranking passages, the index of files."""
WEB_SEARCH = WorkPool("web-search", 8)
"""Search engines that are asked through a blocking library."""
NAMES = WorkPool("names", 8)
"""Looking up the hosts of pages, whose name servers may be anybody's; the loop's own executor is left to those of our settings."""
MODELS = WorkPool("models", 8)
"""Waiting for unloads; reading tokenizers of models that are not in memory."""
METRICS = WorkPool("metrics", 1)
TRACES = WorkPool("traces", 1)
LOGS = WorkPool("logs", 1)
"""Writing the log of requests."""
CONFIGURATION = WorkPool("configuration", 1)
"""Looking at the files that the gateway is configured by, and reading them again."""
HUB = WorkPool("hub", 4)
"""Asking the hub whether it has a model that no entry names, and its cache what is downloaded."""


def encoding(characters: int) -> WorkPool:
    """The pool for texts of this size together."""
    return ENCODING if characters <= LONG_TEXT_CHARACTERS else LONG_TEXTS
