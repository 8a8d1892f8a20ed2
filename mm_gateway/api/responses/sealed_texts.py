"""Thoughts and summaries as `encrypted_content`, which clients bring back: readable for this installation alone.

AES-256-GCM (NIST SP 800-38D) under a key of the installation, with a random nonce. What one client was given is no use to another: the
owner is authenticated with it, and the kind of item that it is of.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING, Literal, Protocol

from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.errors import InvalidRequestError
from mm_gateway.storage.installation_key import installation_key
from mm_gateway.work_pools import STORAGE

if TYPE_CHECKING:  # 25 ms, which a start need not wait for
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE_BYTES = 12


Sealed = Literal["reasoning", "compaction"]
"""Kinds of items."""


class Unseal(Protocol):
    """Reads what was sealed for one owner."""

    def __call__(self, sealed: str, *, param: str, of: Sealed) -> str: ...


class SealedTexts:
    """Seals and opens; `ready` comes first. The key's file is made at the first use."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._cipher: AESGCM | None = None

    async def ready(self) -> None:
        """Raises:
        StorageError: the key cannot be read or made.
        """
        if self._cipher is None:
            self._cipher = await STORAGE.run(self._load)

    def seal(self, owner: str, text: str, *, of: Sealed) -> str:
        """What only `open` of this installation makes a text of, for the same owner and kind of item."""
        assert self._cipher is not None
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), _VERSION + _bound_to(owner, of))
        return base64.urlsafe_b64encode(_VERSION + nonce + sealed).decode()

    def open(self, owner: str, sealed: str, *, param: str, of: Sealed) -> str:
        """The text.

        Raises:
            InvalidRequestError: it was not sealed here for this owner and kind of item, or was changed since.
        """
        from cryptography.exceptions import InvalidTag

        assert self._cipher is not None
        try:
            raw = base64.b64decode(sealed.encode(), altchars=b"-_", validate=True)
            nonce, content = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
            return self._cipher.decrypt(nonce, content, raw[:1] + _bound_to(owner, of)).decode("utf-8", "surrogatepass")
        except (InvalidTag, binascii.Error, ValueError):
            raise InvalidRequestError(
                f"The encrypted content of this {of} item could not be verified: it is not from this server, or was changed. "
                "Leave the item out of the input",
                param=param,
                code="invalid_encrypted_content",
            ) from None

    def _load(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(installation_key(self._settings.place("installation.key"), "reasoning"))


def _bound_to(owner: str, of: Sealed) -> bytes:
    return owner.encode() if of == "reasoning" else f"{of}\0{owner}".encode()
