"""The part of a JSON schema that the grammar engine can hold an output to, and the names of what it cannot.

llguidance (https://github.com/guidance-ai/llguidance) refuses a schema that has a keyword it does not implement. Whoever asked for exactly
that schema has to be told; where a schema only helps, as that of a tool that is not strict, the rest of it still does. What is left out
only ever lets more values pass. A test compares the tables here with the installed llguidance.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mm_gateway.errors import UnsupportedParameterError

UNENFORCEABLE: dict[str, str | None] = {
    "$dynamicRef": None,
    "$recursiveRef": None,
    "not": None,
    "if": None,
    "dependentSchemas": "object",
    "dependentRequired": "object",
    "dependencies": "object",
    "propertyNames": "object",
    "unevaluatedProperties": "object",
    "contains": "array",
    "unevaluatedItems": "array",
    "uniqueItems": "array",
}
"""Keyword -> the type of the values that it says something about; None: of all."""
WITHOUT_EFFECT = frozenset({"$dynamicAnchor", "then", "else", "minContains", "maxContains"})
"""Says nothing without one of the keywords above, which is the one to be named."""
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})
"""That are enforced. Any other `format` is an annotation, as JSON Schema says of all of them."""

_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_LISTED = ("prefixItems", "anyOf", "allOf", "oneOf", "items")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_BEYOND_REGEX = re.compile(r"\\.|(?P<found>\(\?(?:<?[=!]|P=)|\(\?>)", re.DOTALL)  # look-around, references, atomic groups
_REFERENCE = re.compile(r"\\(?:[1-9]|k<)")
_LARGEST, _SMALLEST = 2.0**63, 1e-30  # bounds of numbers, but for 0
_NEXT = 1e-14  # of a number, or of 1: that many digits llguidance tells apart


class Enforceable(NamedTuple):
    """schema: what can be enforced, as llguidance takes it. left_out: paths of the keywords that cannot: `properties.x.uniqueItems`."""

    schema: Any
    left_out: tuple[str, ...]


def enforceable(schema: Any) -> Enforceable:
    """Splits a schema whose depth is within `limits.py`; annotations that llguidance does not know go without a word."""
    left_out: list[str] = []
    reader = _Reader(left_out.append, has_ids="$id" in json.dumps(schema))
    return Enforceable(reader.read(schema, ""), tuple(left_out))


def as_enforced(schema: Any, param: str) -> Any:
    """A schema that is wanted as it stands, as llguidance takes it.

    Raises:
        UnsupportedParameterError: it cannot be enforced; `param` is the path of the keyword.
    """
    found = enforceable(schema)
    if found.left_out:
        path = f"{param}.{found.left_out[0]}"
        raise UnsupportedParameterError(
            f"{path}: an output cannot be held to this keyword as it is used here. Leave it out, and check the output for it yourself",
            param=path,
        )
    return found.schema


class _Reader:
    """Args: leave_out: is told the path of each keyword that goes. has_ids: references may lead to a schema by its name."""

    def __init__(self, leave_out: Callable[[str], None], *, has_ids: bool) -> None:
        self._leave_out = leave_out
        self._has_ids = has_ids

    def read(self, schema: Any, path: str) -> Any:
        """The part of the schema at a path; paths end with a dot, but for that of the root."""
        if not isinstance(schema, dict):
            return schema
        result: dict[str, Any] = {}
        for key, value in schema.items():
            if key in WITHOUT_EFFECT or (key == "format" and not (isinstance(value, str) and value in FORMATS)):
                continue
            if self._unenforceable(schema, key, value):
                self._leave_out(f"{path}{key}")
            elif key not in UNENFORCEABLE:
                result[key] = self._value(key, value, path)
        self._loosen(schema, result, path)
        _narrow(result)
        return result

    def _unenforceable(self, schema: Mapping[str, Any], key: str, value: Any) -> bool:
        match key:
            case "if":
                return "then" in schema or "else" in schema
            case "$ref":
                return isinstance(value, str) and not value.startswith("#") and not self._has_ids
            case "pattern":
                return isinstance(value, str) and _beyond_regex(value)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                return isinstance(value, (int, float)) and not (value == 0 or _SMALLEST <= abs(value) <= _LARGEST)
            case "minProperties" | "maxProperties":
                return isinstance(value, int) and _beyond_counting(schema, key, value)
            case _ if key in UNENFORCEABLE:
                kind, types = UNENFORCEABLE[key], schema.get("type")
                applies = kind is None or types is None or kind == types or (isinstance(types, list) and kind in types)
                return applies and not _says_nothing(key, value)
            case _:
                return False

    def _value(self, key: str, value: Any, path: str) -> Any:
        if key in _NAMED and isinstance(value, dict):
            return {name: self.read(inner, f"{path}{key}.{name}.") for name, inner in value.items()}
        if key in _LISTED and isinstance(value, list):
            return [self.read(inner, f"{path}{key}[{index}].") for index, inner in enumerate(value)]
        if key in _SINGLE:
            return self.read(value, f"{path}{key}.")
        return value

    def _loosen(self, schema: Mapping[str, Any], result: dict[str, Any], path: str) -> None:
        """Keywords that would refuse more once something beside them or within them is gone."""
        patterns = result.get("patternProperties")
        if isinstance(patterns, dict):
            for pattern in [pattern for pattern in patterns if _beyond_regex(pattern)]:
                del patterns[pattern]
                self._leave_out(f"{path}patternProperties.{pattern}")
                if result.pop("additionalProperties", None) is not None:
                    self._leave_out(f"{path}additionalProperties")  # it would refuse what the pattern lets pass
        if "oneOf" in result and result["oneOf"] != schema["oneOf"] and "anyOf" not in result and _has_unenforceable(schema["oneOf"]):
            result["anyOf"] = result.pop("oneOf")  # what was one before may be several now
            self._leave_out(f"{path}oneOf")


def relaxed(schema: Any) -> Enforceable:
    """As `enforceable`, and without what no value could fit or only trying would tell, for schemas that only help.

    Left out too: `oneOf`, as `anyOf`, where the engine cannot see that its members exclude each other; names that are `required` and not
    allowed.
    """
    found = enforceable(schema)
    left_out = list(found.left_out)
    for path, inner in _schemas(found.schema, ""):
        members = inner.get("oneOf")
        if isinstance(members, list) and "anyOf" not in inner and not _exclusive(members):
            inner["anyOf"] = inner.pop("oneOf")
            left_out.append(f"{path}oneOf")
        required, properties = _names(inner.get("required")), _names(inner.get("properties"))
        closed = inner.get("additionalProperties") is False and not inner.get("patternProperties")
        if closed and not properties >= required:
            inner["required"] = sorted(required & properties)
            left_out.append(f"{path}required")
    return Enforceable(found.schema, tuple(left_out))


def _schemas(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with its path."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key, value in list(schema.items()):
        if key in _NAMED and isinstance(value, dict):
            for name, inner in value.items():
                yield from _schemas(inner, f"{path}{key}.{name}.")
        elif key in _LISTED and isinstance(value, list):
            for index, inner in enumerate(value):
                yield from _schemas(inner, f"{path}{key}[{index}].")
        elif key in _SINGLE:
            yield from _schemas(value, f"{path}{key}.")


def _has_unenforceable(members: Any) -> bool:
    return isinstance(members, list) and any(enforceable(member).left_out for member in members)


def _exclusive(members: list[Any]) -> bool:
    """Whether no value fits two of the schemas, as far as it is plain to see: by their types, or by a property that tells them apart."""
    if not all(isinstance(member, dict) for member in members):
        return False
    types = [member.get("type") for member in members]
    if all(isinstance(kind, str) for kind in types) and len(set(types)) == len(types) and not {"integer", "number"} <= set(types):
        return True
    names = set.intersection(*(_names(member.get("required")) & _names(member.get("properties")) for member in members))
    return any(_distinct([member["properties"][name] for member in members]) for name in names)


def _names(value: Any) -> set[str]:
    return {name for name in value if isinstance(name, str)} if isinstance(value, (list, dict)) else set()


def _distinct(schemas: list[Any]) -> bool:
    seen: set[str] = set()
    for schema in schemas:
        if not isinstance(schema, dict) or not ("const" in schema or isinstance(schema.get("enum"), list)):
            return False
        values = {json.dumps(value, sort_keys=True) for value in ([schema["const"]] if "const" in schema else schema["enum"])}
        if values & seen:
            return False
        seen |= values
    return True


def _says_nothing(key: str, value: Any) -> bool:
    match key:
        case "uniqueItems":
            return value is False
        case "not" | "contains":
            return False
        case _:  # holds one schema, or one for each name
            return value is True or value == {}


def _beyond_counting(schema: Mapping[str, Any], key: str, value: int) -> bool:
    """llguidance counts properties where all that are listed are required, and names that it has written already among them."""
    required, listed = _names(schema.get("required")), _names(schema.get("properties"))
    return not required >= listed or (key == "minProperties" and value > len(required) + 1)


def _beyond_regex(pattern: str) -> bool:
    """Whether it has what no automaton can do."""
    return any(match["found"] or _REFERENCE.match(match[0]) for match in _BEYOND_REGEX.finditer(pattern))


def _narrow(schema: dict[str, Any]) -> None:
    """llguidance lets a whole number pass that is the open lower bound of a range which ends before the next one.

    In its place comes the closest number above that it can tell apart, so that the bound itself is outside.
    """
    low = schema.get("exclusiveMinimum")
    high = [schema[key] for key in ("maximum", "exclusiveMaximum") if isinstance(schema.get(key), (int, float))]
    if not isinstance(low, (int, float)) or isinstance(low, bool) or low != math.floor(low) or not high or schema.get("type") == "integer":
        return
    least = low + _NEXT * max(abs(low), 1)
    if low < min(high) < low + 1 and min(high) > least:
        del schema["exclusiveMinimum"]
        schema["minimum"] = max(least, schema.get("minimum", least))
