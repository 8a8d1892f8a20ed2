"""Takes out of a body what no field of it is, for servers that are told to ignore it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from msgspec import inspect


def without_unknown(value: Any, kind: inspect.Type, at: str = "") -> tuple[Any, tuple[str, ...]]:
    """A JSON value without the fields that its type does not know, and the paths of those.

    Only types that refuse them are looked at; `dict[str, Any]` takes anything. at: path of the value, "" for a whole body.
    """
    left_out: list[str] = []
    return _known(value, kind, at, left_out), tuple(left_out)


def _known(value: Any, kind: inspect.Type, at: str, left_out: list[str]) -> Any:
    match kind:
        case inspect.Metadata(type=inner):
            return _known(value, inner, at, left_out)
        case inspect.UnionType(types=options):
            # One of them fits the value at most: msgspec tells structs, lists and dicts in one union apart by their JSON.
            for option in options:
                if _fits(value, option):
                    return _known(value, option, at, left_out)
            return value
        case inspect.StructType(fields=fields) if _is_object(value):
            types = {field.encode_name: field.type for field in fields}
            paths = {name: f"{at}.{name}" if at else name for name in value}
            if kind.forbid_unknown_fields:
                known = {*types, kind.tag_field}
                left_out += [paths[name] for name in value if name not in known]
                value = {name: entry for name, entry in value.items() if name in known}
            return {name: _known(entry, types[name], paths[name], left_out) if name in types else entry for name, entry in value.items()}
        case inspect.ListType(item_type=inner) if isinstance(value, list):
            return [_known(entry, inner, f"{at}[{index}]", left_out) for index, entry in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return value


def _fits(value: Any, kind: inspect.Type) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return (isinstance(kind, inspect.StructType) and isinstance(value, Mapping)) or (
        isinstance(kind, inspect.ListType) and isinstance(value, list)
    )


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
