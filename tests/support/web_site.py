"""A web site on loopback whose every page is a raw HTTP reply, so that it can be as broken as the real web is."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

import msgspec

Write = Callable[[bytes], Awaitable[None]]
Page = bytes | Callable[[str, Write], Awaitable[None]]
"""A whole reply, or what writes one, given the target of the request."""


class WebSite:
    """Attributes: address: http://127.0.0.1:PORT. requests: (target, headers) of all that came. dropped: clients that hung up."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self.pages = dict(pages)
        self.address = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.dropped = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(piece: bytes) -> None:
            writer.write(piece)
            await writer.drain()

        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            target = head[0].split()[1]
            self.requests.append((target, dict(line.lower().split(": ", 1) for line in head[1:] if line)))
            page = self.pages.get(target.partition("?")[0], reply(b"no such page", status="404 Not Found"))
            if isinstance(page, bytes):
                await write(page)
            else:
                writing = asyncio.ensure_future(page(target, write))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
                if not writing.done():
                    self.dropped.set()
                for task in (writing, gone):
                    task.cancel()
                await asyncio.gather(writing, gone, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            self.dropped.set()
        except asyncio.CancelledError:
            pass  # the site closes; asyncio's streams complain of tasks that end as cancelled
        finally:
            self.tasks.discard(task)
            writer.close()


@contextlib.asynccontextmanager
async def web_site(pages: Mapping[str, Page]) -> AsyncIterator[WebSite]:
    site = WebSite(pages)
    server = await asyncio.start_server(site.handle, "127.0.0.1", 0)
    site.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.close()
        for task in site.tasks:
            task.cancel()
        await asyncio.gather(*site.tasks)


def reply(body: bytes, *, kind: str = "text/html; charset=utf-8", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(to: str) -> bytes:
    return reply(b"", status="302 Found", location=to)


def article(title: str, *paragraphs: str, charset: str = "utf-8") -> bytes:
    """An HTML page with the furniture that real ones have."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    page = (
        f"<html><head><title>{title}</title></head><body><nav><a href='/'>Home</a> <a href='/login'>Log in</a></nav>"
        f"<main><article><h1>{title}</h1>{body}</article></main><footer>Cookies! Imprint</footer></body></html>"
    )
    return page.encode(charset)


async def silent(target: str, write: Write) -> None:
    """Takes the request and never answers."""
    await asyncio.sleep(60)


async def dripping(target: str, write: Write) -> None:
    """Always sends a little, so that no single read takes long."""
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
    while True:
        await write(b"<p>drip</p>")
        await asyncio.sleep(0.01)


async def endless(target: str, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
    while True:
        await write(b"x" * 65536)


def gzip_bomb(size: int) -> bytes:
    return reply(gzip.compress(b"\0" * size, 9), content_encoding="gzip")


def searxng(results: Sequence[Mapping[str, object]]) -> Callable[[str, Write], Awaitable[None]]:
    """The JSON API of a SearXNG server that always finds these."""

    async def page(target: str, write: Write) -> None:
        asked = parse_qs(urlsplit(target).query)
        if asked.get("format") != ["json"]:
            await write(reply(b"<html>", status="403 Forbidden"))
            return
        body = {"query": asked["q"][0], "number_of_results": 0, "results": results, "answers": [], "infoboxes": [], "suggestions": []}
        await write(reply(msgspec.json.encode(body), kind="application/json"))

    return page
