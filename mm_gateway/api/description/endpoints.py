"""`GET /schema`: the OpenAPI description as a page, and as JSON at `/schema/openapi.json`; open to everybody."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, MediaType, Response, get

from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.description.document import document
from mm_gateway.api.description.page import CONTENT_SECURITY_POLICY, render
from mm_gateway.api.page.files import NO_REFERRER_NO_SNIFFING


@get("/schema", sync_to_thread=False)
def schema_page(request: HTTPRequest) -> Response[str]:
    state = request.app.state
    if "schema_page" not in state:
        state["schema_page"] = render(_document(request.app))
    headers = {**NO_REFERRER_NO_SNIFFING, "content-security-policy": CONTENT_SECURITY_POLICY}
    return Response(state["schema_page"], media_type=MediaType.HTML, headers=headers)


@get("/schema/openapi.json", sync_to_thread=False)
def schema_json(request: HTTPRequest) -> Response[dict[str, Any]]:
    return Response(_document(request.app))


def _document(app: Litestar) -> dict[str, Any]:
    if "openapi" not in app.state:
        app.state["openapi"] = document(app.routes)
    return app.state["openapi"]
