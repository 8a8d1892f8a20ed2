"""Ranges that settings share; the loader checks by them, and the configuration reference shows them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

AtLeastOne = Annotated[int, Meta(ge=1)]
AtLeastZero = Annotated[int, Meta(ge=0)]
AtLeastOneKiB = Annotated[int, Meta(ge=1024)]
UpToTwenty = Annotated[int, Meta(ge=1, le=20)]
Running = Annotated[int, Meta(ge=1, le=1024)]
DraftLength = Annotated[int, Meta(ge=1, le=15)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
LoadFactor = Annotated[float, Meta(gt=1)]
# `title`: a pattern in words.
Device = Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$", title="auto, cuda, cuda:N or cpu")]
Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[^/]+)$", title="*, or origins such as https://example.org")]
Url = Annotated[str, Meta(pattern=r"^(?i:https?)://", title="an http:// or https:// address")]
