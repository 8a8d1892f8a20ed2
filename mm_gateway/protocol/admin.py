"""Bodies and replies of the operator's endpoints, which are ours alone."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


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
