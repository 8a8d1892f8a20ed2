"""`GET /admin/models`, and `POST /admin/models/{id}/load | unload | pin | unpin | drain | resume`."""

from __future__ import annotations

from litestar import get, post
from litestar.datastructures import State
from litestar.params import FromPath

from mm_gateway.api.models import card
from mm_gateway.catalog import Catalog
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ModelCard
from mm_gateway.protocol.admin import DeviceMemory, OperatorModels

ACTIONS = ("load", "unload", "pin", "unpin", "drain", "resume")


@get("/admin/models", summary="Every model as it is now, and the memory that local ones take")
async def list_operator_models(state: State) -> OperatorModels:
    catalog: Catalog = state.catalog
    await catalog.look_at_cache()
    stats = catalog.manager_stats()
    memory = [DeviceMemory(device, used, stats.budgets[device]) for device, used in stats.memory.items()] if stats is not None else []
    return OperatorModels([card(info) for info in catalog.infos()], memory)


@post(
    "/admin/models/{target:path}",
    status_code=200,
    summary="Load, unload, pin or unpin a local model, drain or resume a member of groups: /admin/models/{id}/{action}",
)
async def manage_model(state: State, target: FromPath[str]) -> ModelCard:
    """Answers with the model as it is afterwards; `load` and `unload` wait until it is done.

    `drain` does not: a group's own card shows how many requests its member still answers.
    """
    # Ids may hold slashes, so the action is what follows the last one.
    name, _, action = str(target).removeprefix("/").rpartition("/")
    if action not in ACTIONS or not name:
        raise InvalidRequestError(f"The path must be /admin/models/ID/ACTION with one of the actions {', '.join(ACTIONS)}")
    catalog: Catalog = state.catalog
    if action == "load":
        await catalog.load(name)
    elif action == "unload":
        await catalog.unload(name)
    elif action in ("drain", "resume"):
        catalog.drain(name, action == "drain")
    else:
        await catalog.pin(name, action == "pin")
    return card(catalog.resolve(name).info())
