"""What a JSON schema asks of its compiler, and whether any finite value fits it. Nothing here recurses, and all is linear."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.derivable import derivable
from mm_gateway.runtime.grammars.limits import (
    MAX_BYTES,
    MAX_DEFINITIONS,
    MAX_JSON_DEPTH,
    MAX_PROPERTIES,
    MAX_REFERENCE_DEPTH,
    check,
)
from mm_gateway.runtime.grammars.regex import check_regex

# Long runs at once, without a way back: one match keeps the interpreter to itself until it ends.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)
_VALUES = frozenset({"const", "enum", "default", "examples"})  # hold values, which may look like schemas
_DEFINITIONS = frozenset({"$defs", "definitions"})


def check_schema_text(text: str, param: str) -> None:
    """As `check_schema`, of JSON as text. Text that is no JSON is left to the compiler, which says what is wrong."""
    check(param, "bytes", len(text.encode()), MAX_BYTES)
    check(param, "levels of JSON", json_extent(text)[1], MAX_JSON_DEPTH)
    try:
        schema = json.loads(text)
    except ValueError:
        return
    check_schema(schema, param)


def check_schema(schema: Any, param: str) -> None:
    """Raises InvalidRequestError where a schema is beyond the limits, or no finite value fits it.

    Args:
        param: the field that holds it, to be named in the error.
    """
    for depth, container in _containers(schema):
        check(param, "levels of JSON", depth, MAX_JSON_DEPTH)
        if not isinstance(container, dict):
            continue
        for key in _DEFINITIONS:
            if isinstance(container.get(key), dict):
                check(param, "definitions", len(container[key]), MAX_DEFINITIONS)
        properties = container.get("properties")
        if isinstance(properties, dict):
            check(param, "properties of one object", len(properties), MAX_PROPERTIES)
        patterns = container.get("patternProperties")
        for pattern in (container.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
            if isinstance(pattern, str):
                check_regex(pattern, param)
    check(param, "$refs that lead to each other", _reference_depth(schema), MAX_REFERENCE_DEPTH)
    if not _has_finite_value(schema):
        raise InvalidRequestError(f"{param}: no finite value fits this schema, because it requires itself inside itself", param=param)


def json_extent(text: str, start: int = 0) -> tuple[int, int]:
    """Where the JSON object or array that begins at `start` ends, and how deep it is; the end of the text where it does not end."""
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        if match[0] in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "}]":
            depth -= 1
            if depth <= 0:
                return match.end(), deepest
    return len(text), deepest


def _containers(schema: Any) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """Every object and array with its depth, from 1."""
    stack: list[tuple[int, Any]] = [(1, schema)]
    while stack:
        depth, value = stack.pop()
        if isinstance(value, (dict, list)):
            yield depth, value
            stack += ((depth + 1, inner) for inner in (value.values() if isinstance(value, dict) else value))


def _reference_depth(schema: Any) -> int:
    """How many references follow each other at most, as a compiler meets them that compiles each of their targets once."""
    deepest = depth = 0
    seen: set[int] = set()
    stack: list[tuple[Any, bool]] = [(schema, False)]  # (value, whether it was reached by a reference); None: a reference is left
    while stack:
        value, referred = stack.pop()
        if value is None:
            depth -= 1
            continue
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        if referred:
            depth += 1
            deepest = max(deepest, depth)
            stack.append((None, False))
        if isinstance(value, list):
            stack += ((inner, False) for inner in value)
            continue
        stack += ((inner, False) for key, inner in value.items() if key not in _VALUES and key not in _DEFINITIONS and inner is not None)
        if isinstance(value.get("$ref"), str):
            stack.append((resolve(schema, value["$ref"]), True))
    return deepest


def resolve(schema: Any, reference: str) -> Any:
    """What a reference within the schema points at (RFC 6901); False where that is nothing, or somewhere else."""
    if not reference.startswith("#"):
        return False
    found = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and len(name) < 10 and int(name) < len(found):
            found = found[int(name)]
        else:
            return False
    return found


def _has_finite_value(schema: Any) -> bool:
    """Whether nothing that a value needs needs itself. Says yes where it cannot tell."""
    rules: list[tuple[Hashable, Sequence[Hashable]]] = []
    pending: list[Any] = [schema]
    seen: set[int] = set()

    def node(inner: Any) -> Hashable:
        if isinstance(inner, dict):
            pending.append(inner)
            return id(inner)
        return True  # that `false` fits nothing, the compiler says better

    rules.append((True, ()))
    root = node(schema)
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if not isinstance(current, dict):
            continue
        if "const" in current or "enum" in current:
            rules.append((id(current), ()))
            continue
        needs: list[Hashable] = []
        if isinstance(current.get("$ref"), str) and current["$ref"].startswith("#"):
            target = resolve(schema, current["$ref"])
            needs.append(node(target) if isinstance(target, dict) else True)
        needs += (node(member) for member in _list(current.get("allOf")))
        for key in ("anyOf", "oneOf"):
            if members := _list(current.get(key)):
                rules += (((id(current), key), (node(member),)) for member in members)
                needs.append((id(current), key))
        needs += (node(inner) for inner in _required(current))
        rules.append((id(current), needs))
    return root in derivable(rules)


def _required(schema: dict[str, Any]) -> Iterator[Any]:
    """Schemas of the parts that every value of this schema has, as far as they are plain to see."""
    if schema.get("type") in ("object", ["object"]):
        properties = schema.get("properties")
        for name in _list(schema.get("required")):
            if isinstance(properties, dict) and isinstance(name, str) and name in properties:
                yield properties[name]
            elif not schema.get("patternProperties"):
                yield schema.get("additionalProperties", True)
    if schema.get("type") in ("array", ["array"]):
        least = schema.get("minItems")
        first = _list(schema.get("prefixItems"))
        if isinstance(least, int):
            yield from first[: max(least, 0)]
            if least > len(first):
                yield schema.get("items", True)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
