"""`anthropic:` of `gateway.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta


class AnthropicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`anthropic:` of `gateway.yaml`: for clients that know the names of Anthropic's models alone."""

    models: Annotated[
        Mapping[str, str],
        Meta(
            description="Patterns of names that nothing else has, and the model that answers to them, such as `{claude-*: qwen3}`; "
            "the first that fits counts."
        ),
    ] = msgspec.field(default_factory=dict[str, str])
