"""`GET /admin/usage`: tokens, requests and money by day, month, key, model and endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from litestar import get
from litestar.datastructures import State

from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.admin import UsageEntry, UsageList
from mm_gateway.storage.usage_store import Dimension, UsageRow, read_day, read_dimensions
from mm_gateway.work_pools import STORAGE

T = TypeVar("T")

FILTERS = ("start", "end", "key", "model", "endpoint")


@get("/admin/usage", summary="What keys have used, by day, month, key, model and endpoint")
async def show_usage(request: HTTPRequest, state: State) -> UsageList:
    """Days are those of UTC. Requests count on the day on which they came, once they have ended."""
    given: dict[str, str] = dict(request.query_params)
    if unknown := given.keys() - {*FILTERS, "group_by"}:
        name = min(unknown)[:100]
        raise InvalidRequestError(f"Unknown parameter: {name}. Allowed are {', '.join(FILTERS)} and group_by", param=name)
    group_by: list[Dimension] = _read("group_by", read_dimensions, given.pop("group_by", "day,key,model"))
    for name in ("start", "end"):
        if name in given:
            given[name] = _read(name, read_day, given[name])
    ledger: Ledger = state.ledger
    rows = await ledger.report(group_by, **given)
    # A year of many keys is a hundred thousand lines, for which nobody's tokens should wait.
    return await STORAGE.run(_listed, rows)


def _listed(rows: Sequence[UsageRow]) -> UsageList:
    return UsageList([UsageEntry(**{name: getattr(row, name) for name in row.__struct_fields__}) for row in rows])


def _read(name: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: {error}", param=name) from None
