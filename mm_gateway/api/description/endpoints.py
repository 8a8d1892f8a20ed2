"""`GET /schema`: the OpenAPI description as a page, and as JSON at `/schema/openapi.json`; open to everybody."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.constants import OPENAPI_JSON_HANDLER_NAME
from litestar.openapi.plugins import ScalarRenderPlugin

from mm_gateway.api.description.document import document

_page = ScalarRenderPlugin()


@get("/schema", sync_to_thread=False, media_type=MediaType.HTML)
def schema_page(request: Request) -> bytes:
    return _page.render(request, _document(request.app))


# The name under which Litestar's pages look for it.
@get("/schema/openapi.json", name=OPENAPI_JSON_HANDLER_NAME, sync_to_thread=False)
def schema_json(request: Request) -> Response[dict[str, Any]]:
    return Response(_document(request.app))


def _document(app: Litestar) -> dict[str, Any]:
    if "openapi" not in app.state:
        app.state["openapi"] = document(app.routes)
    return app.state["openapi"]
