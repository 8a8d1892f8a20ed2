"""Bodies and replies of the operator's endpoints, which are ours alone."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.protocol.replies import ModelCard


class ReloadReply(msgspec.Struct, kw_only=True):
    """Reply of `POST /admin/reload`: what was taken over. Names are those of entries of `models.yaml`."""

    added: Annotated[list[str], Meta(description="Models that are new.")] = msgspec.field(default_factory=list[str])
    changed: Annotated[list[str], Meta(description="Models whose entries changed; requests that run go on with the old ones.")] = (
        msgspec.field(default_factory=list[str])
    )
    removed: Annotated[list[str], Meta(description="Models that are gone; requests that run with them go on.")] = msgspec.field(
        default_factory=list[str]
    )
    keys: Annotated[int, Meta(description="Keys of the key file that open now.")] = 0
    restart: Annotated[
        list[str],
        Meta(description="Settings of `gateway.yaml` whose new values count from the next start, such as `server.port`."),
    ] = msgspec.field(default_factory=list[str])
    object: Literal["reload"] = "reload"


class RequestEntry(msgspec.Struct, kw_only=True):
    """A request, as far as it has come. Of what it says and is answered, nothing."""

    id: str
    """That of its header `x-request-id`."""
    endpoint: str
    model: str
    """The entry that answers; "" where none is known."""
    key: str
    """Name of its key, or the beginning of the key's hash; "" where no key is asked for."""
    stream: bool
    state: Literal["arriving", "waiting", "running", "finished"]
    """waiting: for the first token."""
    status: int | None
    """Of HTTP; null until the reply begins."""
    error: str
    """The code of what ended it; "" where nothing did."""
    client_gone: bool
    """The client hung up before the end."""
    arrived_at: float
    """Unix seconds."""
    duration_s: float
    """Until now, or until its end."""
    time_to_first_token_s: float | None
    prompt_tokens: int
    output_tokens: int
    """Until now."""


class RequestTotals(msgspec.Struct):
    """Since the start. output_tokens: with those of requests that run, so that its growth is the throughput of now."""

    requests: int
    failed: int
    prompt_tokens: int
    output_tokens: int


class RequestList(msgspec.Struct):
    """Reply of `GET /admin/requests`. now: Unix seconds. recent: the newest that have ended, the newest first."""

    now: float
    running: list[RequestEntry]
    recent: list[RequestEntry]
    totals: RequestTotals


class DeviceMemory(msgspec.Struct):
    """Bytes that local models take on a device, and that they may take; null: without bound."""

    device: str
    used_bytes: int
    budget_bytes: int | None


class OperatorModels(msgspec.Struct):
    """Reply of `GET /admin/models`: every model, whatever a client's key opens."""

    data: list[ModelCard]
    memory: list[DeviceMemory]


class DrainReply(msgspec.Struct, kw_only=True):
    """Reply of `POST /admin/drain` and `DELETE /admin/drain`."""

    draining: Annotated[bool, Meta(description="New requests get a 503.")]
    running: Annotated[int, Meta(description="Generations that still run.")]
    object: Literal["drain"] = "drain"
