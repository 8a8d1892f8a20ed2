"""uvicorn's HTTP protocol where it answers by itself, before there is a request: in the envelope, and with bounded heads."""

from __future__ import annotations

import json
import secrets

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10


class EnvelopeProtocol(HttpToolsProtocol):
    """Refuses what is no HTTP, and lines without end, which the parser itself would collect: heads, and trailers and sizes of chunks.

    MAX_HEAD_BYTES bounds each.
    """

    _in_head = True
    _line_bytes = 0  # of the head so far; elsewhere what came since the last piece of a body

    def data_received(self, data: bytes) -> None:
        self._line_bytes += len(data)
        super().data_received(data)
        if self._line_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "Request Header Fields Too Large", f"The request's headers exceed {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._line_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._line_bytes = 0
        super().on_message_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer of a chunked body, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._line_bytes = 0
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """There are no web sockets here; the request is answered like any other."""

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "Bad Request", msg)

    def _refuse(self, status: int, reason: str, message: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The request before, or this one, whose body broke: to the application, its client is gone.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:  # what follows would be taken for a part of that reply
                self.transport.close()
                return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        head += f"x-request-id: req_{secrets.token_hex(16)}\r\nopenai-processing-ms: 0\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()
