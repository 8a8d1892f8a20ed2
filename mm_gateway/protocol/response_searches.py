"""Items of `/v1/responses` for searches that the gateway runs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SearchStatus = Literal["in_progress", "searching", "completed", "incomplete", "failed"]


class FileCitationAnnotation(msgspec.Struct, tag_field="type", tag="file_citation"):
    """`index`: the place in the part's text. `file_id`: the file's address in the index."""

    file_id: str
    filename: str
    index: int


class WebSearchCallItem(msgspec.Struct, tag_field="type", tag="web_search_call"):
    """`action`: `{"type": "search", "query", "queries"}`, with `sources` where the request includes them."""

    id: str
    action: dict[str, Any]
    status: SearchStatus = "completed"


class FileSearchCallItem(msgspec.Struct, tag_field="type", tag="file_search_call"):
    """`results`: of each passage `{"file_id", "filename", "text", …}`, where the request includes them."""

    id: str
    queries: list[str]
    status: SearchStatus = "completed"
    results: list[dict[str, Any]] | None = None


SearchItem = WebSearchCallItem | FileSearchCallItem
