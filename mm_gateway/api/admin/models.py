"""`POST /admin/models/{id}/load | unload | pin | unpin`."""

from __future__ import annotations

from litestar import post
from litestar.datastructures import State
from litestar.params import FromPath

from mm_gateway.api.models import card
from mm_gateway.catalog import Catalog
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ModelCard

ACTIONS = ("load", "unload", "pin", "unpin")


@post("/admin/models/{target:path}", status_code=200, summary="Load, unload, pin or unpin a local model: /admin/models/{id}/{action}")
async def manage_model(state: State, target: FromPath[str]) -> ModelCard:
    """Answers with the model as it is afterwards; `load` and `unload` wait until it is done."""
    # Ids may hold slashes, so the action is what follows the last one.
    name, _, action = str(target).removeprefix("/").rpartition("/")
    if action not in ACTIONS or not name:
        raise InvalidRequestError(f"The path must be /admin/models/ID/ACTION with one of the actions {', '.join(ACTIONS)}")
    catalog: Catalog = state.catalog
    if action == "load":
        await catalog.load(name)
    elif action == "unload":
        await catalog.unload(name)
    else:
        await catalog.pin(name, action == "pin")
    return card(catalog.resolve(name).info())
