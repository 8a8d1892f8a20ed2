"""Conversations by session, over a store of records: bounded, private to whoever began them, and changed by one request at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from mm_gateway.chat_templates.history import turn_starts
from mm_gateway.core import Message
from mm_gateway.storage.keyed_lock import Turns
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.shared_store import SharedStore
from mm_gateway.text import estimate_tokens

_decode = msgspec.json.Decoder(tuple[Message, ...]).decode
_encode = msgspec.json.Encoder().encode


class Session:
    """One session for the length of one request.

    Attributes:
        history: what was said before, oldest first, without system messages.
    """

    def __init__(self, history: tuple[Message, ...], append: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        self.history = history
        self._append = append

    async def append(self, messages: Sequence[Message]) -> None:
        """Keep what was said now. Once it has begun it is finished, whatever becomes of the request.

        Raises:
            StorageError: it could not be kept.
        """
        await self._append(messages)


class Sessions:
    """Every session of a store. Of any thread and event loop.

    Args:
        open_store: called once, at the first use. max_turns, max_tokens: what is kept of one session, its newest turns; the
            last one always. Tokens are estimated, since sessions may go from model to model.
    """

    def __init__(self, open_store: Callable[[], RecordStore], *, max_turns: int, max_tokens: int) -> None:
        self._store = SharedStore(open_store)
        self._max_turns = max_turns
        self._max_tokens = max_tokens
        self._turns = Turns()

    @asynccontextmanager
    async def session(self, id: str, owner: str = "") -> AsyncIterator[Session]:
        """The session of an id, new where it was never seen. Requests to one session come one after the other, in their order.

        Args:
            id: any text; never part of a path. owner: only the same one sees the session.

        Raises:
            StorageError, ConfigurationError: it cannot be read.
        """
        key = msgspec.json.encode([owner, id]).decode()
        await self._turns.acquire(key)
        try:
            found = await self._store.run(lambda store: store.get(key))
            yield Session(_decode(found) if found is not None else (), partial(self._append, key))
        finally:
            self._turns.release(key)

    def close(self) -> None:
        """Idempotent."""
        self._store.close()

    async def _append(self, key: str, messages: Sequence[Message]) -> None:
        # Read again: another process may have written meanwhile, and its turn must not be lost.
        def change(known: bytes | None) -> bytes:
            return _encode(self._bounded([*(_decode(known) if known is not None else ()), *messages]))

        await self._store.run(lambda store: store.update(key, change))

    def _bounded(self, messages: Sequence[Message]) -> Sequence[Message]:
        starts = turn_starts(messages)[-self._max_turns :]
        for start in starts:
            if sum(estimate_tokens(message.content) for message in messages[start:]) <= self._max_tokens:
                return messages[start:]
        return messages[starts[-1] :] if starts else messages
