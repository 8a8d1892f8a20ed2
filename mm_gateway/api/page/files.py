"""`GET /` and `GET /page/…`: the files of the page, open to everybody; what they show they ask of the API, with the reader's keys."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec
from litestar import HttpMethod, Response, route
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from mm_gateway.api.connection import HTTPRequest

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_GET = [HttpMethod.GET, HttpMethod.HEAD]

NO_REFERRER_NO_SNIFFING = {"referrer-policy": "no-referrer", "x-content-type-options": "nosniff", "x-frame-options": "DENY"}
"""Of every answer that a browser shows as a page."""
HEADERS = {
    **NO_REFERRER_NO_SNIFFING,
    # Trusted Types: a browser that knows them refuses to make elements from text, wherever the page might try it by mistake.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",  # asked for again each time, and answered by 304 while it is the same
}


class PageFile(msgspec.Struct, frozen=True):
    """One file as it is sent. etag: of its bytes."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Every file of the page by its name, read once."""
    return {
        path.name: PageFile(content := path.read_bytes(), _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for path in STATIC.iterdir()
        if path.suffix in _TYPES
    }


@route("/", http_method=_GET, sync_to_thread=False)
def page(request: HTTPRequest, state: State) -> Response[bytes]:
    """Also what clients of Anthropic's API ask for by HEAD to see whether somebody is there; people may watch how it drains."""
    if state.server.page and not (state.draining and request.method == "HEAD"):
        return _sent(request, "index.html")
    return Response(b"", status_code=503 if state.draining else 200, media_type="text/plain")


@route("/page/{name:str}", http_method=_GET, sync_to_thread=False)
def page_file(request: HTTPRequest, state: State, name: FromPath[str]) -> Response[bytes]:
    if not state.server.page or name not in page_files():
        raise NotFoundException
    return _sent(request, name)


def _sent(request: HTTPRequest, name: str) -> Response[bytes]:
    file = page_files()[name]
    headers = {**HEADERS, "etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)
