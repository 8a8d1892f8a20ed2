"""Compares values with the bounds in the annotations of a struct's fields, and words what is wrong; knows none of the bounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, TypeGuard, cast

import msgspec
from msgspec import inspect

from mm_gateway.errors import InvalidRequestError


class Range(msgspec.Struct, frozen=True):
    """Bounds of a number or of a length. low: inclusive unless `open`. high: inclusive."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        # False for NaN, which compares false with everything.
        return (self.low < value if self.open else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low, high = _plain(self.low), _plain(self.high)
        if self.open:
            return f"greater than {low}" + ("" if self.high == math.inf else f" and at most {high}")
        if self.high == math.inf:
            return f"at least {low}"
        return f"at most {high}" if self.low == -math.inf else f"between {low} and {high}"


def range_of(kind: inspect.Type) -> Range:
    """The bounds of a type: of a number itself, of a text, list or mapping those of its length."""
    match kind:
        case inspect.Metadata():
            found = range_of(kind.type)
            schema = cast(Mapping[str, float], kind.extra_json_schema or {})  # pyright: ignore[reportUnknownMemberType]
            return Range(found.low, schema.get("maximum", found.high), found.open)
        case inspect.IntType(ge=ge, gt=gt, le=le) | inspect.FloatType(ge=ge, gt=gt, le=le):
            low = ge if gt is None else gt
            return Range(-math.inf if low is None else low, math.inf if le is None else le, gt is not None)
        case (
            inspect.StrType(min_length=least, max_length=most)
            | inspect.ListType(min_length=least, max_length=most)
            | inspect.VarTupleType(min_length=least, max_length=most)
            | inspect.DictType(min_length=least, max_length=most)
        ):
            return Range(least or -math.inf, math.inf if most is None else most)
        case _:
            return Range()


def check_ranges(struct: msgspec.Struct) -> None:
    """Compare each field of a struct, as msgspec does where it decodes one.

    Raises:
        InvalidRequestError: a value is out of its range; `param` names the field.
    """
    for field, number in _fields(type(struct)):
        value = getattr(struct, field.name)
        # Most fields of a request are left at their defaults, or numbers within their range: these two cost it least.
        if value is field.default or (number is not None and isinstance(value, int | float) and value in number):
            continue
        if (error := violation(field.name, value, field.type)) is not None:
            raise error


def violation(param: str, value: Any, kind: inspect.Type) -> InvalidRequestError | None:
    """The first value out of its range, in the order of the fields; None: there is none. What is of another type is passed over.

    Args:
        param: path of the value, "" for a whole body. value: as it was made, or as JSON decodes it. kind: its type.
    """
    match _without_schema(kind):
        case inspect.UnionType(types=types):
            errors = (violation(param, value, option) for option in types)
            return next((error for error in errors if error is not None), None)
        case inspect.IntType() | inspect.FloatType() if isinstance(value, int | float) and value not in range_of(kind):
            return InvalidRequestError(f"{param} must be {range_of(kind)}, got {str(value)[:50]}", param=param)
        case inspect.StrType() if isinstance(value, str):
            return _length(param, value, kind, "characters")
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner) if _is_list(value):
            return _length(param, value, kind, "entries") or _first(
                violation(f"{param}[{index}]", entry, inner) for index, entry in enumerate(value)
            )
        case inspect.DictType(key_type=keys, value_type=inner) if _is_mapping(value):
            error = _length(param, value, kind, "entries") or _first(
                violation(f"{param}[{str(key)[:50]}]", part, type_)
                for key, entry in value.items()
                for part, type_ in ((key, keys), (entry, inner))
            )
            # The message names the entry; `param` is a field.
            return InvalidRequestError(str(error), param=param) if error is not None else None
        case inspect.StructType(fields=fields) if _is_mapping(value):
            return _first(
                violation(f"{param}.{field.encode_name}" if param else field.encode_name, value.get(field.encode_name), field.type)
                for field in fields
            )
        case _:
            return None


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _length(param: str, value: Sized, kind: inspect.Type, of: str) -> InvalidRequestError | None:
    allowed = range_of(kind)
    if len(value) in allowed:
        return None
    return InvalidRequestError(f"{param} must have {allowed} {of}, got {len(value)}", param=param)


def _first(errors: Iterable[InvalidRequestError | None]) -> InvalidRequestError | None:
    return next((error for error in errors if error is not None), None)


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[tuple[inspect.Field, Range | None], ...]:
    """The fields, with the range of those that hold a number."""
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    found: list[tuple[inspect.Field, Range | None]] = []
    for field in described.fields:
        options = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        numbers = [option for option in options if isinstance(_without_schema(option), inspect.IntType | inspect.FloatType)]
        found.append((field, range_of(numbers[0]) if numbers else None))
    return tuple(found)


def _without_schema(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _plain(bound: float) -> float:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
