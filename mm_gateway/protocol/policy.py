"""Which fields of a body are served, harmless or not served: said once, beside each field, by `fields.no_effect` and `fields.refused`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.protocol.fields import POLICY

Policy = Literal["served", "harmless", "not served"]


@functools.cache
def policies(struct: type[msgspec.Struct]) -> Mapping[str, Policy]:
    """Every field of a struct of the wire, with how it is treated."""
    return {name: _extra(meta.extra_json_schema, POLICY, "served") for name, meta in _described(struct).items()}


def refuse_unserved(body: msgspec.Struct, at: str = "") -> None:
    """Refuse what would have to change the reply and cannot, however empty its value; objects in fields are looked into too.

    Args:
        at: path of the body.

    Raises:
        UnsupportedParameterError: a field that is not served has a value that does not turn it off; `param` is its path.
    """
    for name, off in _looked_into(type(body)):
        value = getattr(body, name)
        if off is not None and value not in off:
            raise UnsupportedParameterError(f"{at}{name} is not supported by this server", param=f"{at}{name}")
        if isinstance(value, msgspec.Struct):
            refuse_unserved(value, f"{at}{name}.")


@functools.cache
def _looked_into(struct: type[msgspec.Struct]) -> tuple[tuple[str, tuple[Any, ...] | None], ...]:
    """Of the fields that are not served, or may hold an object: the name, and the values that turn it off; None: it is served."""
    described = _described(struct)
    unserved = {name: _extra(described[name].extra, "off", ()) for name, policy in policies(struct).items() if policy == "not served"}
    objects = {field.name for field in msgspec.structs.fields(struct) if _may_be_struct(field.type)}
    return tuple((name, unserved.get(name)) for name in struct.__struct_fields__ if name in unserved or name in objects)


def _may_be_struct(kind: Any) -> bool:
    return (isinstance(kind, type) and issubclass(kind, msgspec.Struct)) or any(map(_may_be_struct, get_args(kind)))


def _described(struct: type[msgspec.Struct]) -> dict[str, Meta]:
    hints = get_type_hints(struct, include_extras=True)
    found: dict[str, Meta] = {}
    for name in struct.__struct_fields__:
        metas = [meta for meta in getattr(hints[name], "__metadata__", ()) if isinstance(meta, Meta)]
        found[name] = next((meta for meta in metas if meta.description is not None), Meta())
    return found


def _extra(extra: Mapping[str, Any] | None, key: str, default: Any) -> Any:
    return (extra or {}).get(key, default)
