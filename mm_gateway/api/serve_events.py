"""Runs a Backend's generator for one HTTP request: first event before the status, heartbeats while it waits, cancel when the client goes.

A pump reads the generator into a buffer; the writer sends whatever has arrived in one message, so that a burst of
events costs one write. A reader that is slow holds up the writer, a full buffer the pump, and that the generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from mm_gateway.api.access.admission import Ticket
from mm_gateway.api.connection import CLIENT_CLOSED, Disconnect
from mm_gateway.api.errors import error_response, http_error
from mm_gateway.api.pump import Pump
from mm_gateway.api.replies.reply import Reply, is_large
from mm_gateway.core import ChoiceFinished, GenerationEvent, Progress, ReplyFields, WorkflowStep
from mm_gateway.work_pools import BODIES

IGNORED_HEADER = "x-mm-gateway-ignored"
"""Names what of the request was left out, so far as it was known when the reply began."""
_MAX_HEADER = 4096


async def whole_response(
    events: AsyncIterator[GenerationEvent], reply: Reply, receive: Receive, ticket: Ticket, ignored: Sequence[str] = ()
) -> ASGIResponse:
    """The folded reply; the work is cancelled when the client hangs up before it is there. ignored: as for `stream_response`."""
    pump, client = Pump(events, ticket, ignored), Disconnect(receive)
    try:
        if not await client.race(asyncio.create_task(pump.wait_end())):
            return ASGIResponse(status_code=CLIENT_CLOSED)
    finally:
        client.stop()
        await pump.cancel()
    if pump.error is not None:
        return _failed(reply, pump.error)
    return ASGIResponse(body=await reply.fold(pump.buffer), media_type="application/json", headers=ignored_header(pump.ignored, reply))


async def stream_response(
    events: AsyncIterator[GenerationEvent],
    reply: Reply,
    receive: Receive,
    ticket: Ticket,
    ignored: Sequence[str] = (),
    *,
    early_commit_s: float,
    heartbeat_s: float,
) -> ASGIResponse:
    """A response whose status is decided: an error before the first event keeps its own, otherwise 200 and a stream.

    Args:
        ignored: what of the body was left out already.
        early_commit_s: seconds after which 200 is sent without an event. heartbeat_s: interval of comments from then on.
    """
    pump, client = Pump(events, ticket, ignored, stages_begin=reply.stages, bounded=True), Disconnect(receive)
    try:
        arrived = await client.race(asyncio.create_task(pump.wait_begun(early_commit_s)))
        if not arrived:
            client.stop()
            await pump.cancel()
            return ASGIResponse(status_code=CLIENT_CLOSED)
        if pump.error is not None and not pump.begun:
            client.stop()
            return _failed(reply, pump.error)
    except BaseException:
        client.stop()
        await pump.cancel()
        raise
    return _EventStream(pump, client, reply, heartbeat_s)


def _failed(reply: Reply, error: BaseException) -> ASGIResponse:
    return error_response(reply.in_envelope(http_error(reply.for_client(error))))


class _EventStream(ASGIResponse):
    """Server-sent events of one reply."""

    _should_set_content_length = False

    def __init__(self, pump: Pump, client: Disconnect, reply: Reply, heartbeat_s: float) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **ignored_header(pump.ignored, reply)}
        super().__init__(media_type="text/event-stream", headers=headers)
        self._pump = pump
        self._client = client
        self._reply = reply
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.current_task()
        assert sender is not None
        hung_up = False

        def on_disconnect() -> None:
            nonlocal hung_up
            if not finished:
                hung_up = True
                sender.cancel()

        finished = False
        self._client.add_callback(on_disconnect)
        try:
            await self.start_response(send)
            await self._send_events(send)
            finished = True
        except asyncio.CancelledError:
            if not hung_up:
                raise
            self._pump.record.client_gone = True
            sender.uncancel()
        finally:
            finished = True
            self._client.stop()
            await self._pump.cancel()

    async def _send_events(self, send: Send) -> None:
        pump, reply = self._pump, self._reply
        started = False
        had_large = False
        while True:
            if not await pump.wait(self._heartbeat_s):
                await _write(send, _heartbeat(pump.progress) + reply.heartbeat)
                continue
            pieces: list[bytes] = []
            while pump.buffer:
                event = pump.take()
                if isinstance(event, Progress | WorkflowStep) and not reply.stages:
                    # Progress that something follows already is no news.
                    if isinstance(event, Progress) and not (pump.buffer or pump.ended):
                        pieces.append(_heartbeat(event))
                    continue
                # What is said of the whole reply goes into its first chunk.
                if not started and not isinstance(event, ReplyFields):
                    pieces.append(reply.start())
                    started = True
                large = is_large([event])
                had_large = had_large or large
                # The end of a choice may tell once more all that it said.
                apart = large or (had_large and isinstance(event, ChoiceFinished))
                pieces.append(await BODIES.run(reply.chunk, event) if apart else reply.chunk(event))
            if pump.ended:
                pieces.append(await reply.end(pump.error))
                await send({"type": "http.response.body", "body": without_line_separators(b"".join(pieces)), "more_body": False})
                return
            await _write(send, b"".join(pieces))


def ignored_header(ignored: Sequence[str], reply: Reply) -> dict[str, str]:
    """The header that names what is left out; none where nothing is."""
    if not ignored:
        return {}
    named = (
        ", ".join(map(reply.field_for_client, ignored)).encode("ascii", "backslashreplace").decode()
    )  # names in a schema may be of any script
    named = "".join(char if char.isprintable() else "?" for char in named)
    return {IGNORED_HEADER: named if len(named) <= _MAX_HEADER else named[: _MAX_HEADER - 3] + "..."}


async def _write(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": without_line_separators(body), "more_body": True})


def without_line_separators(body: bytes) -> bytes:
    """With U+0085, U+2028 and U+2029 escaped: JSON may hold them, but clients that split lines as Unicode does break there."""
    if body.isascii():  # the quickest look of all, and megabytes of log-probabilities are
        return body
    for separator in ("\x85", "\u2028", "\u2029"):
        body = body.replace(separator.encode(), b"\\u%04x" % ord(separator))
    return body


def _heartbeat(progress: Progress | None) -> bytes:
    """A comment line: it keeps proxies from closing the stream, and clients skip it."""
    text = " ".join((progress.detail or progress.stage).split()) if progress is not None else "waiting"
    return f": {text}\n\n".encode()
