"""Bodies and replies of the operator's endpoints, which are ours alone."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

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


Count = Annotated[int, Meta(ge=1)]
Cost = Annotated[float, Meta(gt=0)]
LAST_SECOND = 253402300799.0
"""Of the year 9999, in Unix seconds: later ones are no dates, and mostly milliseconds by mistake."""
UnixTime = Annotated[float, Meta(le=LAST_SECOND)]
KeyName = Annotated[str, Meta(min_length=1, max_length=200)]


class KeyFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /admin/keys` and of `PATCH /admin/keys/{id}`; what is left out is null there, and stays as it is here."""

    name: Annotated[KeyName | UnsetType, Meta(description="Whose it is, for usage and what it stores; left out: its id.")] = UNSET
    models: Annotated[list[str] | UnsetType | None, Meta(description="Models that it may use; null: all.")] = UNSET
    requests_per_minute: Annotated[Count | UnsetType | None, Meta(description="null: as `limits.requests_per_minute` says.")] = UNSET
    tokens_per_minute: Annotated[Count | UnsetType | None, Meta(description="null: as `limits.tokens_per_minute` says.")] = UNSET
    tokens_per_day: Annotated[Count | UnsetType | None, Meta(description="Budget of tokens a day (UTC); null: none.")] = UNSET
    tokens_per_month: Annotated[Count | UnsetType | None, Meta(description="Likewise, a month.")] = UNSET
    cost_per_day: Annotated[Cost | UnsetType | None, Meta(description="Budget of money a day, by the models' `price`; null: none.")] = UNSET
    cost_per_month: Annotated[Cost | UnsetType | None, Meta(description="Likewise, a month.")] = UNSET
    expires_at: Annotated[UnixTime | UnsetType | None, Meta(description="From then on it opens nothing, in Unix seconds; null: never.")] = (
        UNSET
    )
    disabled: Annotated[bool | UnsetType, Meta(description="It opens nothing for now.")] = UNSET


class Spent(msgspec.Struct):
    """What a key has used in a period."""

    tokens: int = 0
    cost: float = 0.0


class AdminKey(msgspec.Struct, kw_only=True):
    """A key, as `/admin/keys` shows it."""

    id: Annotated[str | None, Meta(description="Of one that was made in the running gateway; null: it is configured.")] = None
    name: str
    source: Annotated[
        Literal["settings", "file", "made"],
        Meta(description="`server.api_keys`, the key file, or made in the running gateway; only those can be changed here."),
    ]
    created_at: float | None = None
    models: list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_day: float | None = None
    cost_per_month: float | None = None
    expires_at: float | None = None
    disabled: bool = False
    used_today: Annotated[Spent, Meta(description="By the calendar of UTC.")]
    used_this_month: Spent
    object: Literal["api_key"] = "api_key"


class NewKey(AdminKey, kw_only=True):
    """Reply of `POST /admin/keys`."""

    key: Annotated[str, Meta(description="The key itself. It is kept nowhere and cannot be shown again.")]


class AdminKeyList(msgspec.Struct):
    """Reply of `GET /admin/keys`: first those that are configured, then those that were made."""

    data: list[AdminKey]
    object: Literal["list"] = "list"


class DeletedKey(msgspec.Struct):
    """Reply of `DELETE /admin/keys/{id}`."""

    id: str
    deleted: bool = True
    object: Literal["api_key"] = "api_key"


class UsageEntry(msgspec.Struct, kw_only=True):
    """A line of `GET /admin/usage`; of what it is not grouped by, null."""

    day: str | None = None
    month: str | None = None
    key: str | None = None
    model: str | None = None
    endpoint: str | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: Annotated[int, Meta(description="Of the prompt's tokens.")]
    output_tokens: int
    reasoning_tokens: Annotated[int, Meta(description="Of the output's tokens.")]
    cost: Annotated[float, Meta(description="By the models' `price`.")]


class UsageList(msgspec.Struct):
    """Reply of `GET /admin/usage`, in the order of what it is grouped by."""

    data: list[UsageEntry]
    object: Literal["list"] = "list"
