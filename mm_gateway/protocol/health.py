"""What the gateway says of itself: health, readiness, version."""

from __future__ import annotations

from typing import Literal

import msgspec


class Health(msgspec.Struct):
    """Reply of `GET /health`."""

    status: Literal["ok", "shutting down"]
    version: str


class Readiness(msgspec.Struct):
    """Reply of `GET /health/ready`."""

    ready: bool
    reasons: list[str]
    """Why it should get no new requests now; empty where it should."""


class Version(msgspec.Struct):
    """Reply of `GET /version`."""

    version: str
