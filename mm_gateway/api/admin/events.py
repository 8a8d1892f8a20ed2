"""`GET /admin/events`: which models came, left and failed, and why."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.datastructures import State

from mm_gateway.catalog import Catalog
from mm_gateway.runtime.residency.history import ModelEvent


class ModelEventList(msgspec.Struct):
    """The newest first."""

    data: tuple[ModelEvent, ...]


@get("/admin/events", sync_to_thread=False, summary="Which local models were loaded, evicted and failed to load, and why")
def list_events(state: State) -> ModelEventList:
    catalog: Catalog = state.catalog
    return ModelEventList(catalog.model_events())
