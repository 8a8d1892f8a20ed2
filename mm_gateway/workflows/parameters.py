"""A workflow's parameters: from what a client gave to a typed struct, with the name of what is wrong; described for listings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from mm_gateway.errors import InvalidRequestError

_AT = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)


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
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise _named(str(error), kind, prefix) from None


def describe(kind: type[Parameters], subject: str) -> dict[str, Any]:
    """Name -> JSON schema of each parameter but `subject`."""
    (reference,), definitions = msgspec.json.schema_components([kind])
    properties = definitions[reference["$ref"].rpartition("/")[2]]["properties"]
    return {name: schema for name, schema in properties.items() if name != subject}


def _named(message: str, kind: type[Parameters], prefix: str) -> InvalidRequestError:
    match = _AT.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "")
    if unknown := _UNKNOWN.match(what):
        name = f"{prefix}{unknown['name'][:200]}"
        allowed = ", ".join(kind.__struct_fields__)
        return InvalidRequestError(f"Unrecognized request argument supplied: {name}; there are {allowed}", param=name)
    if missing := _MISSING.match(what):
        name = f"{prefix}{missing['name']}"
        return InvalidRequestError(f"You must provide the parameter: {name}", param=name)
    param = f"{prefix}{path}".rstrip(".")
    return InvalidRequestError(f"Invalid value for '{param}': {what[:300]}", param=param)
