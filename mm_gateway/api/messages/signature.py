"""Signatures of thinking blocks: a tag over the thought under the installation's key, and the thought itself where it is not shown.

Clients bring them back with the block. A signature keeps nothing secret; it says that a thought which the client was not shown, and
which stands in the signature alone, is one that this installation gave out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_SHOWN, _HIDDEN = "mmg1.", "mmg2."
_TAG_BYTES = 32


class Signer:
    """key: of the installation, for this purpose."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, thought: str, *, hidden: bool = False) -> str:
        """hidden: the block is sent without the thought, which goes into the signature."""
        text = thought.encode("utf-8", "surrogatepass")
        tag = hmac.digest(self._key, text, hashlib.sha256)
        return (_HIDDEN if hidden else _SHOWN) + base64.b64encode(tag + text if hidden else tag).decode()

    def hidden_thought(self, signature: str) -> str | None:
        """The thought that a signature of ours holds; None: it holds none, or is of another server."""
        if not signature.startswith(_HIDDEN):
            return None
        try:
            data = base64.b64decode(signature.removeprefix(_HIDDEN), validate=True)
        except (binascii.Error, ValueError):
            return None
        tag, text = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if not hmac.compare_digest(tag, hmac.digest(self._key, text, hashlib.sha256)):
            return None
        return text.decode("utf-8", "surrogatepass")
