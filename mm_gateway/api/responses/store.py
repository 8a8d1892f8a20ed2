"""Keeps responses of `/v1/responses` for those who made them, bounded in number, size and age; opened on first use."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

import msgspec

from mm_gateway.api.responses.items import is_response_id, response_of
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.errors import InvalidRequestError, NotStoredError, StorageError
from mm_gateway.protocol.responses import Item, StoredResponse
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.shared_store import SharedStore
from mm_gateway.work_pools import STORAGE

logger = logging.getLogger(__name__)

_decoder = msgspec.json.Decoder(StoredResponse)
_MAX_SHOWN = 100


class ResponseStore:
    """Responses by owner and id. An owner sees none of another's.

    What is kept of a response holds its whole conversation, so that it can be continued whatever became of earlier ones.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._store = SharedStore(self._open)

    @property
    def is_shared(self) -> bool:
        """Whether other gateways have the same one, in a database."""
        return self._settings.url is not None

    async def ready(self) -> None:
        """Open it. One that is shared is asked each time: a request that it will not keep must not run first.

        Raises:
            ConfigurationError: it cannot be opened. StorageError: not now.
        """
        await self._store.run(RecordStore.check if self.is_shared else lambda _: None)

    async def check(self) -> None:
        """See that it can be written to; errors as for `ready`."""
        await self._store.run(RecordStore.check)

    async def get(self, owner: str, id: str) -> StoredResponse:
        """Raises:
        NotStoredError: there is none of that id, or no longer, or it is another owner's. ConfigurationError, StorageError: as for `ready`.
        """
        found = await self._store.run(partial(_get, owner, id)) if is_response_id(id) else None
        if found is None:
            raise not_found(id)
        return found

    async def items(self, owner: str, ids: Iterable[str]) -> dict[str, Item]:
        """Stored items by their ids, as far as there are any."""
        found: dict[str, Item] = {}
        for response_id in {response for id in ids if (response := response_of(id)) is not None}:
            try:
                stored = await self.get(owner, response_id)
            except NotStoredError:
                continue
            found |= {item.id: item for item in (*stored.input, *stored.response.output)}
        return found

    async def put(self, owner: str, stored: StoredResponse, *, again: bool = False) -> bool:
        """Whether it is kept; what prevents it is logged.

        Args:
            again: it was put before, and what was deleted since stays so.

        Raises:
            NotStoredError: it was deleted since.
        """

        def write(store: RecordStore) -> bool:
            key, value = _key(owner, stored.response.id), msgspec.json.encode(_moved(stored, store.ahead_s()))
            if again:
                return store.replace(key, value)
            store.put(key, value)
            return True

        try:
            if not await self._store.run(write):
                raise not_found(stored.response.id)
        except StorageError as error:
            logger.error("response %s could not be stored: %s", stored.response.id, error)
            return False
        return True

    async def delete(self, owner: str, id: str) -> None:
        """Errors as for `get`."""
        if not (is_response_id(id) and await self._store.run(lambda store: store.delete(_key(owner, id)))):
            raise not_found(id)

    def check_size(self, begun: StoredResponse) -> None:
        """Raises:
        InvalidRequestError: the conversation, and what else was asked with it, is larger than what is stored.
        """
        limit = self._settings.response_max_bytes
        if (size := len(msgspec.json.encode(begun))) > limit:
            raise InvalidRequestError(
                f"The request and its conversation take {size} bytes, and this server stores at most {limit} of one. Send store: false, "
                "and the whole conversation as input of each request",
                param="input",
            )

    async def close(self) -> None:
        """Idempotent."""
        await STORAGE.run(self._store.close)

    def _open(self) -> RecordStore:
        settings = self._settings
        return RecordStore(settings.place("gateway.sqlite"), "response", max_records=settings.max_responses, ttl_s=settings.response_ttl_s)


def _get(owner: str, id: str, store: RecordStore) -> StoredResponse | None:
    """Decoded in the storage thread too: a long conversation's JSON would hold up every other request."""
    found = store.get(_key(owner, id))
    if found is None:
        return None
    try:
        return _moved(_decoder.decode(found), -store.ahead_s())
    except msgspec.DecodeError as error:
        logger.warning("stored response %s is of another version and cannot be read: %s", id, error)
        return None


def _moved(stored: StoredResponse, seconds: float) -> StoredResponse:
    """Signs of life are stored by the store's clock, since that of another gateway's machine may be minutes off."""
    return stored if stored.alive_at is None else msgspec.structs.replace(stored, alive_at=stored.alive_at + seconds)


def not_found(id: str) -> NotStoredError:
    return NotStoredError(f"Response with id '{id[:_MAX_SHOWN]}' not found.")


def _key(owner: str, id: str) -> str:
    """Ids have one form, so whatever is in an owner's name, no two pairs make one key."""
    return f"{owner}/{id}"
