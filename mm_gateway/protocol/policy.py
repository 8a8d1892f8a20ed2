"""Which fields of a body are served, harmless or not served: said once, beside each field, by `fields.no_effect` and `fields.refused`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, get_type_hints

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
    unserved = _unserved(type(body))
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if name in unserved and value not in unserved[name]:
            raise UnsupportedParameterError(f"{at}{name} is not supported by this server", param=f"{at}{name}")
        if isinstance(value, msgspec.Struct):
            refuse_unserved(value, f"{at}{name}.")


@functools.cache
def _unserved(struct: type[msgspec.Struct]) -> Mapping[str, tuple[Any, ...]]:
    """Fields that are not served -> values that turn them off."""
    described = _described(struct)
    return {name: _extra(described[name].extra, "off", ()) for name, policy in policies(struct).items() if policy == "not served"}


def _described(struct: type[msgspec.Struct]) -> dict[str, Meta]:
    hints = get_type_hints(struct, include_extras=True)
    found: dict[str, Meta] = {}
    for name in struct.__struct_fields__:
        metas = [meta for meta in getattr(hints[name], "__metadata__", ()) if isinstance(meta, Meta)]
        found[name] = next((meta for meta in metas if meta.description is not None), Meta())
    return found


def _extra(extra: Mapping[str, Any] | None, key: str, default: Any) -> Any:
    return (extra or {}).get(key, default)
