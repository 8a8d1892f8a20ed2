"""A workflow's parameters: from what a client gave to a typed struct, with the name of what is wrong; described for listings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from mm_gateway.protocol.decoding import convert


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every workflow takes; each adds its own in a subclass (`frozen=True, kw_only=True`)."""

    events: Annotated[bool, msgspec.Meta(description="Streams carry each stage as delta.workflow")] = False


P = TypeVar("P", bound=Parameters)


def read_parameters(kind: type[P], given: Mapping[str, Any], *, prefix: str = "") -> P:
    """The parameters that a client gave.

    Args:
        prefix: what stands before a parameter's name in errors.

    Raises:
        InvalidRequestError: a parameter is unknown, missing, of the wrong type or out of range; `param` names it.
    """
    return convert(dict(given), kind, prefix.rstrip("."))


def describe(kind: type[Parameters], subject: str) -> dict[str, Any]:
    """Name -> JSON schema of each parameter but `subject`."""
    (reference,), definitions = msgspec.json.schema_components([kind])
    properties = definitions[reference["$ref"].rpartition("/")[2]]["properties"]
    return {name: schema for name, schema in properties.items() if name != subject}
