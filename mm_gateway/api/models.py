"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import get
from litestar.datastructures import State
from litestar.params import FromPath

from mm_gateway.api.access.keys import may_use, resolve
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.messages.errors import speaks_anthropic
from mm_gateway.api.messages.models import message_model, model_page
from mm_gateway.catalog import Catalog
from mm_gateway.core import ModelInfo
from mm_gateway.protocol import ModelCard, ModelList
from mm_gateway.protocol.messages import MessageModel, MessageModelList


@get("/v1/models", summary="What is served; with the header anthropic-version as Anthropic's API lists it")
async def list_models(request: HTTPRequest, state: State) -> ModelList | MessageModelList:
    """Aliases come after all names: some clients take the first entry."""
    catalog: Catalog = state.catalog
    await catalog.look_at_cache()
    infos = {info.id: info for info in catalog.infos() if may_use(request, info.id)}
    aliases = [card(infos[name], alias) for alias, name in catalog.aliases.items() if name in infos]
    cards = [*map(card, infos.values()), *aliases]
    return model_page(cards, request.query_params) if speaks_anthropic(request) else ModelList(cards)


@get("/v1/models/{model_id:path}", sync_to_thread=False, summary="One model; ids may hold slashes")
def get_model(request: HTTPRequest, state: State, model_id: FromPath[str]) -> ModelCard | MessageModel:
    # Litestar's path parameters begin with the slash that separates them.
    found = card(resolve(request, state.catalog, str(model_id).removeprefix("/")).info())
    return message_model(found) if speaks_anthropic(request) else found


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
