"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import get
from litestar.datastructures import State
from litestar.params import FromPath

from mm_gateway.api.access.keys import may_use, resolve
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.catalog import Catalog
from mm_gateway.core import ModelInfo
from mm_gateway.protocol import ModelCard, ModelList


@get("/v1/models", summary="What is served")
async def list_models(request: HTTPRequest, state: State) -> ModelList:
    """Aliases come after all names: some clients take the first entry."""
    catalog: Catalog = state.catalog
    await catalog.look_at_cache()
    infos = {info.id: info for info in catalog.infos() if may_use(request, info.id)}
    aliases = [card(infos[name], alias) for alias, name in catalog.aliases.items() if name in infos]
    return ModelList([*map(card, infos.values()), *aliases])


@get("/v1/models/{model_id:path}", sync_to_thread=False, summary="One model; ids may hold slashes")
def get_model(request: HTTPRequest, state: State, model_id: FromPath[str]) -> ModelCard:
    # Litestar's path parameters begin with the slash that separates them.
    return card(resolve(request, state.catalog, str(model_id).removeprefix("/")).info())


def card(info: ModelInfo, alias: str | None = None) -> ModelCard:
    """A model as the endpoints show it, under one of its names."""
    return ModelCard(
        id=alias or info.id,
        root=info.id,
        created=info.created,
        owned_by=info.owned_by,
        max_model_len=info.context_length,
        backend=info.backend,
        state=info.state,
        context_length=info.context_length,
        aliases=info.aliases,
        details=dict(info.details),
    )
