"""What the mock makes up where a reply has to have a form: arguments of a tool, and text that follows a grammar; always the same.

Values are built from their schema, so that they look like what it describes: all properties, `text` for texts. The grammar engine says
whether they fit, as it does for the models, and writes a plainer one byte by byte where they do not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mm_gateway.chat_templates.tool_formats.format import arguments_rule
from mm_gateway.core import Grammar, Tool
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.runtime.grammars.example import example_of
from mm_gateway.runtime.grammars.json_schema import resolve
from mm_gateway.runtime.grammars.trials import TRIALS
from mm_gateway.work_pools import ENCODING

_PATTERNS_S = 1.0
MAX_EXAMPLE = 2**16
"""Values, and characters of texts, in what is made up."""
_FORMATS = {
    "date-time": "2026-01-01T12:00:00Z",
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_TYPE_OF = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "pattern": "string",
    "format": "string",
    "minLength": "string",
    "maxLength": "string",
    "minimum": "number",
    "exclusiveMinimum": "number",
    "maximum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""Keyword -> the type of the values that it is about."""


async def text_for(grammar: Grammar) -> str:
    """A text that follows a grammar, tried out as for a model.

    Raises:
        InvalidRequestError: no model could follow it either. UnsupportedParameterError: the mock finds no text of at most `MAX_EXAMPLE`.
    """
    await TRIALS.checked(grammar)
    return await ENCODING.run(_text, grammar, None)


async def arguments_for(tool: Tool) -> str:
    """Arguments of a tool whose schema can be enforced; errors as for `text_for`."""
    grammar = Grammar("lark", f"start: {arguments_rule(tool)}", "tools")
    await TRIALS.checked(grammar)
    return await ENCODING.run(_text, grammar, tool.parameters)


def _text(grammar: Grammar, schema: Any) -> str:
    wanted: Iterator[str] = iter(())
    match grammar.kind:
        case "json_object":
            wanted = iter(['{"text":"text"}'])
        case "json_schema":
            wanted = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values_for(json.loads(grammar.text)))
        case "lark" if schema is not None:
            wanted = (json.dumps(value, ensure_ascii=False) for value in values_for(schema))
        case "choice":
            return str(json.loads(grammar.text)[0])
        case _:
            pass
    if (text := example_of(grammar, wanted)) is None:
        found = f"the mock found no text that fits, of at most {MAX_EXAMPLE} values and characters"
        raise UnsupportedParameterError(f"{grammar.param}: {found}", param=grammar.param)
    return text


def values_for(schema: Any) -> Iterator[Any]:
    """Values that look like what a schema describes, the fullest first; whether they fit it is to be seen."""
    patterns = _Patterns()
    for full, defaults in ((True, True), (True, False), (False, False)):
        try:
            yield _Values(schema, patterns, full=full, defaults=defaults).of(schema)
        except (
            _NoValueError,
            _TooLargeError,
            TypeError,
            ValueError,
            AttributeError,
            KeyError,
            IndexError,
            ArithmeticError,
            RecursionError,
        ):
            continue  # nobody has said that keywords are of the type that they should be


class _NoValueError(Exception):
    """A value would never end, or is not one that can be made up so simply."""


class _TooLargeError(Exception):
    """More than `MAX_EXAMPLE`; unlike a value that cannot be, nothing inside the schema that is left out makes up for it."""


class _Patterns:
    """Texts for patterns, which the grammar engine makes up; together they take `_PATTERNS_S` at most."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._give_up_at = time.monotonic() + _PATTERNS_S

    def text_for(self, schema: Mapping[str, Any]) -> str:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._found:
            text = example_of(Grammar("json_schema", key), within_s=self._give_up_at - time.monotonic())
            if text is None:
                raise _NoValueError
            self._found[key] = json.loads(text)
        return self._found[key]


class _Values:
    """Makes values.

    Args:
        root: what references lead into. patterns: makes texts that fit them.
        full: with all properties, and an entry in arrays that may be empty. defaults: take what `default` says.
    """

    def __init__(self, root: Any, patterns: _Patterns, *, full: bool, defaults: bool) -> None:
        self._root = root
        self._patterns = patterns
        self._full = full
        self._defaults = defaults
        self._left = MAX_EXAMPLE
        self._inside: list[str] = []  # references that are being followed

    def of(self, schema: Any) -> Any:
        self._take(1)
        if schema is False:
            raise _NoValueError
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference, schema)
        if schema.get("allOf"):
            return self._of_all(schema)
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self._of_one(key, schema)
        if "const" in schema:
            return schema["const"]
        if self._defaults and "default" in schema:
            return schema["default"]
        if "enum" in schema:
            return schema["enum"][0]
        return self._of_type(_type_of(schema), schema)

    def _referred(self, reference: str, schema: Mapping[str, Any]) -> Any:
        if reference in self._inside:
            raise _NoValueError
        self._inside.append(reference)
        try:
            beside = {key: value for key, value in schema.items() if key not in ("$ref", "$defs", "definitions")}
            target = resolve(self._root, reference)
            return self.of(_merged(beside, target) if beside else target)
        finally:
            self._inside.pop()

    def _of_all(self, schema: Mapping[str, Any]) -> Any:
        whole = {name: value for name, value in schema.items() if name != "allOf"}
        for member in schema["allOf"]:
            whole = _merged(whole, member)
        return self.of(whole)

    def _of_one(self, key: str, schema: Mapping[str, Any]) -> Any:
        beside = {name: value for name, value in schema.items() if name != key}
        for member in schema[key]:
            try:
                return self.of(_merged(beside, member))
            except _NoValueError:
                continue
        raise _NoValueError

    def _of_type(self, kind: Any, schema: Mapping[str, Any]) -> Any:
        match kind:
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "array":
                return self._array(schema)
            case "null":
                return None
            case _:
                return self._object(schema)

    def _string(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            about_texts = ("pattern", "format", "minLength", "maxLength")
            return self._patterns.text_for({"type": "string", **{key: schema[key] for key in about_texts if key in schema}})
        size = schema.get("minLength", 0)
        self._take(size)
        return _FORMATS.get(schema.get("format", ""), "text".ljust(size, "x")[: schema.get("maxLength")])

    def _array(self, schema: Mapping[str, Any]) -> list[Any]:
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", math.inf)
        values = [self.of(entry) for entry in schema.get("prefixItems", ())]
        wanted = max(least, 1 if self._full and not values else 0)
        items = schema.get("items", {})
        while len(values) < min(wanted, most) and items is not False:
            try:
                values.append(self.of(items))
            except _NoValueError:
                if len(values) < least:
                    raise
                break
        return values

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        values: dict[str, Any] = {}
        for name, entry in schema.get("properties", {}).items():
            if self._full or name in required:
                try:
                    values[name] = self.of(entry)
                except _NoValueError:
                    if name in required:
                        raise
        others = schema.get("additionalProperties", {})
        return values | {name: self.of(others) for name in required if name not in values}

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _TooLargeError


def _type_of(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return kind[0] if kind else None
    return kind if kind is not None else next((_TYPE_OF[key] for key in schema if key in _TYPE_OF), None)


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    low_is_open, high_is_open = low == schema.get("exclusiveMinimum"), high == schema.get("exclusiveMaximum")
    if low <= 0 <= high and not (low == 0 and low_is_open) and not (high == 0 and high_is_open):
        return 0
    step = schema.get("multipleOf") or 1
    if low >= 0:
        value = math.floor(low / step + 1) * step if low_is_open else math.ceil(low / step) * step
    else:
        value = math.ceil(high / step - 1) * step if high_is_open else math.floor(high / step) * step
    return value if whole or low <= value <= high else (low + high) / 2


def _merged(first: Mapping[str, Any], second: Any) -> dict[str, Any]:
    """What both say, as far as one keyword does not have to fit two."""
    if not isinstance(second, Mapping):
        return dict(first)
    merged = {**first, **second}
    for key in ("properties", "$defs"):
        if isinstance(first.get(key), Mapping) and isinstance(second.get(key), Mapping):
            merged[key] = {**first[key], **second[key]}
    if first.get("required") and second.get("required"):
        merged["required"] = [*first["required"], *second["required"]]
    if any(first.get(key) and second.get(key) for key in ("$ref", "allOf", "anyOf", "oneOf")):
        raise _NoValueError
    return merged
