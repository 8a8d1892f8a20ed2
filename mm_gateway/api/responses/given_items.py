"""Items as clients send them: ids and statuses may be missing, contents be plain text. `items.py` makes whole items of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import MAX_CONTENT_PARTS
from mm_gateway.protocol.response_searches import SearchStatus
from mm_gateway.protocol.responses import ItemStatus, ReasoningText

MAX_ID = 64

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Parts = Annotated[list[dict[str, Any]], Meta(max_length=MAX_CONTENT_PARTS)]


class GivenMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "system", "developer", "assistant"]
    content: str | Parts
    type: str = "message"
    id: Id | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class _Given(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """caller: of a call, and of its result: whether the model called, which alone does here."""

    type: str
    call_id: str
    id: Id | None = None
    status: ItemStatus | None = None
    caller: dict[str, Any] | None = None
    created_by: str | None = None


class GivenCall(_Given, kw_only=True):
    name: str
    arguments: str
    namespace: str | None = None


class GivenCustomCall(_Given, kw_only=True):
    name: str
    input: str
    namespace: str | None = None


class GivenAction(_Given, kw_only=True):
    """Of `local_shell_call` and `shell_call`."""

    action: dict[str, Any]
    environment: dict[str, Any] | None = None


class GivenPatch(_Given, kw_only=True):
    operation: dict[str, Any]


class GivenOutput(_Given, kw_only=True):
    output: str | Parts
    name: str | None = None
    namespace: str | None = None


class GivenLocalShellOutput(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`call_id`, or in its place, as OpenAI's description has it, `id`: the call's."""

    type: str
    output: str
    id: Id | None = None
    call_id: str | None = None
    status: ItemStatus | None = None


class GivenShellOutput(_Given, kw_only=True):
    output: Parts
    max_output_length: int | None = None


class GivenPatchOutput(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    call_id: str
    status: Literal["completed", "failed"]
    id: Id | None = None
    output: str | None = None
    caller: dict[str, Any] | None = None
    created_by: str | None = None


class GivenWebSearch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    action: dict[str, Any] = {}
    id: Id | None = None
    status: SearchStatus | None = None


class GivenFileSearch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    queries: list[str] = []
    results: list[dict[str, Any]] | None = None
    id: Id | None = None
    status: SearchStatus | None = None


class GivenReasoning(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    id: Id | None = None
    summary: list[Any] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class GivenCompaction(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    encrypted_content: str
    id: Id | None = None
    created_by: str | None = None


class GivenReference(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    type: str | None = None
