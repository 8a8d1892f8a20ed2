"""Threads for blocking work, a pool a kind, so that no kind can starve another; knows nothing of what the work is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkPool:
    """Runs one kind of work, first come first served. Threads start when they are needed.

    Args:
        kind: names the threads. threads: pieces of work at a time, >= 1.
    """

    def __init__(self, kind: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=kind)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. Cancelled while it waits for a thread, it never begins; once begun, it is finished."""
        work = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


BODIES = WorkPool("bodies", 1)
"""Decoding and checking large request bodies, folding large replies."""
ENCODING = WorkPool("encoding", 2)
"""Rendering chat templates, tokenizing."""
LONG_TEXTS = WorkPool("long-texts", 1)
"""The same of texts that take a tenth of a second and more: a dozen of them must not be what a short question waits for."""
LONG_TEXT_CHARACTERS = 32 * 2**10
GRAMMARS = WorkPool("grammars", 2)
STORAGE = WorkPool("storage", 2)
"""SQLite: sessions, responses."""
DOCUMENTS = WorkPool("documents", 2)
"""Ranking passages, the index of files."""
WEB_SEARCH = WorkPool("web-search", 8)
"""Search engines that are asked through a blocking library."""
NAMES = WorkPool("names", 8)
"""Looking up the hosts of pages, whose name servers may be anybody's; the loop's own executor is left to those of our settings."""
MODELS = WorkPool("models", 8)
"""Waiting for unloads; reading tokenizers of models that are not in memory."""
HUB = WorkPool("hub", 4)
"""Asking the hub whether it has a model that no entry names, and its cache what is downloaded."""


def encoding(characters: int) -> WorkPool:
    """The pool for texts of this size together."""
    return ENCODING if characters <= LONG_TEXT_CHARACTERS else LONG_TEXTS
