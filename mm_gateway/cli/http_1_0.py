"""Replies of unknown length to HTTP/1.0 clients, which know no chunks: they end with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


class UntilCloseCycle(RequestResponseCycle):
    """uvicorn's, which sends chunks to whoever asks (https://www.rfc-editor.org/rfc/rfc9112#section-6.1 forbids it)."""

    _until_close = False

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self._until_close = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if self._until_close:
                self.chunked_encoding = False
        elif message["type"] == "http.response.body" and self._until_close:
            self.expected_content_length = len(message.get("body", b""))  # whatever comes is what was expected
        await super().send(message)
