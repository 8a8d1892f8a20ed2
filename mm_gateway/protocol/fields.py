"""What the API's description says of a field: one text each, beside the field. A range stands in the type, in `core.limits`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import (
    MAX_METADATA,
    MAX_METADATA_KEY_CHARACTERS,
    MAX_METADATA_VALUE_CHARACTERS,
)

POLICY = "x-policy"
"""Keyword of the API's description: `harmless` or `not served`; other fields are served."""


def about(description: str, *, examples: list[Any] | None = None, **keywords: Any) -> Meta:
    """keywords: of JSON schema, for what is true of a field and checked beyond its type."""
    return Meta(description=description, examples=examples, extra_json_schema=keywords or None)


def extension(description: str, *, examples: list[Any] | None = None) -> Meta:
    """A field that OpenAI's API does not have."""
    return about(f"Extension. {description}", examples=examples)


def no_effect(description: str) -> Meta:
    """A field that is accepted because clients send it, and changes nothing in the reply."""
    return Meta(description=f"{description} Accepted, without effect on the reply.", extra_json_schema={POLICY: "harmless"})


def refused(instead: str = "", *, off: tuple[Any, ...] = ()) -> Meta:
    """A field that is decoded so that it can be refused by its name.

    Args:
        instead: what to use. off: values beside null that turn the feature off, so that they ask for nothing.
    """
    accepted = "".join(f", except `{json.dumps(value)}`" for value in off)
    return Meta(
        description=f"Refused by name: not supported by this server{accepted}. {instead}".strip(),
        examples=list(off) or None,
        extra_json_schema={POLICY: "not served"},
        extra={"off": (None, *off)},
    )


Metadata = Annotated[
    dict[
        Annotated[str, Meta(max_length=MAX_METADATA_KEY_CHARACTERS)],
        Annotated[str, Meta(max_length=MAX_METADATA_VALUE_CHARACTERS)],
    ],
    Meta(max_length=MAX_METADATA),
]
KeepAlive = Annotated[
    float | str | None,
    extension(
        "How long the model stays in memory after this request: seconds, or a text such as `10m`; 0: unload, -1: for good.",
        examples=["10m"],
    ),
]
Speculation = Annotated[
    bool | None,
    extension("False: guess no tokens ahead for this request, by lookup or by a draft model. The text is the same in any case."),
]
Model = Annotated[
    str | None, about("A name or an alias from `/v1/models`. Default, and for an empty text: `default_model`.", examples=["mock"])
]
User = Annotated[str | None, no_effect("Your name of the end user.")]


Verbosity = Annotated[
    Literal["low", "medium", "high"] | None,
    no_effect("For remote models that are asked by chat, who read it; else left out, and named in `x-mm-gateway-ignored`."),
]


class AddressedBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A body for a model."""

    model: Model = None

    @property
    def model_name(self) -> str:
        """The name of the model; "" where none is named."""
        return self.model or ""
