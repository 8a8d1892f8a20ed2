"""Keys that are made, changed and deleted while the gateway runs: by `/admin/keys`, the command line, or another gateway beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mm_gateway.api.access.keys import Keys
from mm_gateway.api.access.ledger import Ledger
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.errors import ConfigurationError, InvalidRequestError, StorageError
from mm_gateway.storage.key_store import KEYS_FILE, KeyStore, MadeKey
from mm_gateway.storage.shared_store import SharedStore
from mm_gateway.work_pools import STORAGE

LOOK_S = 1.0
"""After which what somebody else did to the keys is seen at the latest."""

logger = logging.getLogger(__name__)


class MadeKeys:
    """The keys of the store, put among those that open. Belongs to one event loop.

    Args:
        settings: where they are stored. keys: those that open. ledger: knows what they have used.
    """

    def __init__(self, settings: StorageSettings, keys: Keys, ledger: Ledger) -> None:
        self._place = settings.place(KEYS_FILE)
        self._store = SharedStore(lambda: KeyStore(self._place))
        self._keys = keys
        self._ledger = ledger
        self._version: int | None = None
        self._one_at_a_time = asyncio.Lock()  # an older look must not come after a newer one

    async def open(self) -> None:
        """Learn which there are, and what those of all sources have used. Blocks nobody where there never was any.

        Raises:
            StorageError, ConfigurationError: they cannot be read. Then nothing must open: who would be refused is not known.
        """
        await self._ledger.prepare(self._keys.of("settings", "file"))
        await self._look()

    async def watch(self) -> None:
        """See what somebody else does to them, until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
                failing = self._keys.may_lack = False
            except (StorageError, ConfigurationError) as error:
                self._keys.may_lack = True
                if not failing:
                    logger.error("keys cannot be looked at now; they stay as they were: %s", error)
                failing = True

    async def all(self) -> tuple[MadeKey, ...]:
        """Every one, in the order in which they were made. Errors of all calls: StorageError."""
        return await self._take_over() if await self._are_there() else ()

    async def add(self, key: ApiKey) -> MadeKey:
        """Keep a key, which opens from now on.

        Raises:
            InvalidRequestError: its name is taken.
        """
        self._unless_in_file(key.name)
        made = await self._store.run(lambda store: store.add(key))
        await self._take_over()
        return made

    async def change(self, id: str, change: Callable[[ApiKey], ApiKey]) -> MadeKey:
        """Change a key, from now on; errors as for `KeyStore.change`."""

        def checked(before: ApiKey) -> ApiKey:
            after = change(before)
            if after.name != before.name:
                self._unless_in_file(after.name)
            return after

        made = await self._store.run(partial(KeyStore.change, id=id, change=checked))
        await self._take_over()
        return made

    async def delete(self, id: str) -> MadeKey:
        """It opens nothing any more; errors as for `KeyStore.delete`."""
        made = await self._store.run(lambda store: store.delete(id))
        await self._take_over()
        return made

    def close(self) -> None:
        """Idempotent."""
        self._store.close()

    def _unless_in_file(self, name: str) -> None:
        if name and any(key.principal == name for key in self._keys.of("settings", "file")):
            raise InvalidRequestError(f"'{name[:100]}' already names a key of the key file", param="name")

    async def _are_there(self) -> bool:
        """Whether there ever was one: a file that is gone since is an error of the store, and not a gateway without keys."""
        return self._version is not None or not isinstance(self._place, Path) or await STORAGE.run(self._place.exists)

    async def _look(self) -> None:
        if await self._are_there() and await self._store.run(KeyStore.version) != self._version:
            await self._take_over()

    async def _take_over(self) -> tuple[MadeKey, ...]:
        async with self._one_at_a_time:
            self._version = await self._store.run(KeyStore.version)  # before: what is written in between is seen the next time
            made = await self._store.run(KeyStore.all)
            found = [entry.key for entry in made]
            await self._ledger.prepare(found)
            self._keys.replace("made", found)
        return made
