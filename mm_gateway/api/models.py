"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import get
from litestar.datastructures import State

from mm_gateway.core import ModelInfo
from mm_gateway.protocol import ModelCard, ModelList


@get("/v1/models", sync_to_thread=False, summary="What is served")
def list_models(state: State) -> ModelList:
    return ModelList([card(info) for info in state.catalog.infos()])


@get("/v1/models/{model_id:path}", sync_to_thread=False, summary="One model; ids may hold slashes")
def get_model(state: State, model_id: str) -> ModelCard:
    # Litestar's path parameters begin with the slash that separates them.
    return card(state.catalog.resolve(str(model_id).removeprefix("/")).info())


def card(info: ModelInfo) -> ModelCard:
    """A model as the endpoints show it."""
    return ModelCard(
        id=info.id,
        created=info.created,
        owned_by=info.owned_by,
        backend=info.backend,
        state=info.state,
        context_length=info.context_length,
        aliases=info.aliases,
        details=dict(info.details),
    )
