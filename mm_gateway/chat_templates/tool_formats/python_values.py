"""Values of a JSON schema as Python writes them, as rules of Lark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mm_gateway.chat_templates.tool_formats.frame import quoted
from mm_gateway.chat_templates.tool_formats.parameters import Schema, length_of, referred
from mm_gateway.chat_templates.tool_formats.string_rules import FORMATS

ANY_VALUE = "any_value"
_MAX_DEPTH = 12
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ESCAPED = r"""\\["'\\nrt]"""


def _string(times: str) -> str:
    """Of so many characters, in either quotes."""
    return rf"""/"([^"\\\x00-\x1f]|{_ESCAPED}){times}"/ | /'([^'\\\x00-\x1f]|{_ESCAPED}){times}'/"""


_TERMINALS = {
    "STRING": f"STRING: {_string('*')}",
    "NUMBER": r"NUMBER: /-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?/",
    "BOOLEAN": 'BOOLEAN: "True" | "False"',
    "NONE": 'NONE: "None"',
}
_OF_TYPE = {"boolean": "BOOLEAN", "null": "NONE"}


_UNHELD = frozenset({"pattern", "allOf", "minItems", "maxItems", "prefixItems", "patternProperties", "minProperties", "maxProperties"})


def unheld(schema: object, root: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Paths of what the rules of a schema do not hold its values to."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return []
    of = cast(Mapping[str, Any], schema)
    if "enum" in of or "const" in of:
        return []
    found = [key for key in of if key in _UNHELD or (key == "format" and of[key] in FORMATS)]
    found += [key for key in ("minLength", "maxLength") if of.get(key) and length_of(of, key) is None]
    listed: object = of.get("properties")
    inner: list[tuple[str, object]] = [(key, of.get(key)) for key in ("items", "additionalProperties")]
    inner += (
        [(f"properties.{name}", entry) for name, entry in cast(Mapping[str, object], listed).items()] if isinstance(listed, Mapping) else []
    )
    inner += [(f"{key}[{place}]", entry) for key in ("anyOf", "oneOf") for place, entry in enumerate(of.get(key) or ())]
    reference: object = of.get("$ref")
    if isinstance(reference, str):
        inner.append(("$ref", referred(root, reference)))
    return [*found, *(f"{key}.{path}" for key, entry in inner for path in unheld(entry, root, depth + 1))]


class PythonValues:
    """Collects rules. What a schema says beyond types, lists of values, bounds, lengths, items and properties is left open, which `unheld`
    tells: any value of the type fits."""

    def __init__(self) -> None:
        self._terminals: set[str] = set()
        self._rules: list[str] = []
        self._count = 0
        self._any = False
        self._lengths: dict[str, str] = {}

    @property
    def rules(self) -> list[str]:
        return [*self._rules, *self._lengths.values(), *(_TERMINALS[name] for name in sorted(self._terminals))]

    def use_any(self) -> str:
        """The name of the rule for any value."""
        if not self._any:
            self._any = True
            self._terminals |= {"STRING", "NUMBER", "BOOLEAN", "NONE"}
            self._rules += [
                f"{ANY_VALUE}: STRING | NUMBER | BOOLEAN | NONE | any_list | any_dict",
                f'any_list: "[" ({ANY_VALUE} (", " {ANY_VALUE})*)? "]"',
                'any_dict: "{" (any_item (", " any_item)*)? "}"',
                f'any_item: STRING ": " {ANY_VALUE}',
            ]
        return ANY_VALUE

    def rule(self, schema: Schema, root: Mapping[str, Any], depth: int = 0) -> str:
        """An expression of Lark for the values of a schema."""
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return self.use_any()
        reference: object = schema.get("$ref")
        if isinstance(reference, str):
            return self.rule(cast(Schema, referred(root, reference)), root, depth + 1)
        values: object = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            return self._joined([_literals(value) for value in cast(list[object], values)])
        for key in ("anyOf", "oneOf"):
            branches: object = schema.get(key)
            if isinstance(branches, list) and branches:
                return self._joined([self.rule(branch, root, depth + 1) for branch in cast(list[Schema], branches)])
        kinds: object = schema.get("type")
        if isinstance(kinds, list):
            return self._joined([self._typed(str(kind), schema, root, depth) for kind in cast(list[object], kinds)])
        return self._typed(kinds, schema, root, depth) if isinstance(kinds, str) else self.use_any()

    def _typed(self, kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
        if kind in ("integer", "number"):  # written as in JSON
            bounds = {key: schema[key] for key in _BOUNDS if isinstance(schema.get(key), (int, float))}
            return self._named(f"%json {json.dumps({'type': kind, **bounds})}")
        if kind == "string":
            return self._string(schema)
        if kind in _OF_TYPE:
            self._terminals.add(_OF_TYPE[kind])
            return _OF_TYPE[kind]
        if kind == "array":
            item = self.rule(schema.get("items", True), root, depth + 1)
            return self._named(f'"[" ({item} (", " {item})*)? "]"')
        if kind == "object":
            return self._object(schema, root, depth)
        return self.use_any()

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = (length_of(schema, key) for key in ("minLength", "maxLength"))
        if not least and most is None:
            self._terminals.add("STRING")
            return "STRING"
        bounds = f"{least or 0},{'' if most is None else most}"
        name = f"STRING_{bounds.replace(',', '_')}"
        self._lengths[name] = f"{name}: {_string('{' + bounds + '}')}"
        return name

    def _object(self, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
        listed: object = schema.get("properties")
        if not isinstance(listed, Mapping) or not listed or schema.get("additionalProperties") not in (None, False):
            self._terminals.add("STRING")
            value = self.rule(schema.get("additionalProperties", True), root, depth + 1)
            item = self._named(f'STRING ": " {value}')
            return self._named(f'"{{" ({item} (", " {item})*)? "}}"')
        properties = cast(Mapping[str, Schema], listed)
        needed: object = schema.get("required")
        required = cast(Sequence[object], needed) if isinstance(needed, list) else ()
        name = self._named('""')  # a name of its own for the rules of the sequence
        items = [f"{_key(key)} {self.rule(value, root, depth + 1)}" for key, value in properties.items()]
        self._rules += sequence(f"{name}_in", items, [key in required for key in properties])
        return self._named(f'"{{" {name}_in "}}"')

    def _joined(self, alternatives: Sequence[str]) -> str:
        return self._named(" | ".join(dict.fromkeys(alternatives))) if len(alternatives) > 1 else alternatives[0]

    def _named(self, body: str) -> str:
        name = f"value_{self._count}"
        self._count += 1
        self._rules.append(f"{name}: {body}")
        return name


def sequence(name: str, items: Sequence[str], required: Sequence[bool], more: str = "") -> list[str]:
    """Rules of items in their order with commas between them, those that are not required perhaps left out.

    Args:
        name: of the rule for all. items: as Lark. more: a rule of which any number may follow.

    Two rules an item: `first`, nothing is before it, and `next`, something is.
    """
    rest = f'(", " {more})*' if more else '""'
    rules = [f"{name}_next_{len(items)}: {rest}", f"{name}_first_{len(items)}: {f'({more} {rest})?' if more else rest}"]
    for at, item in reversed(list(enumerate(items))):
        for kind, before in (("first", ""), ("next", '", " ')):
            skipped = "" if required[at] else f" | {name}_{kind}_{at + 1}"
            rules.append(f"{name}_{kind}_{at}: {before}{item} {name}_next_{at + 1}{skipped}")
    return [*rules, f"{name}: {name}_first_0"]


def written(value: object) -> str:
    """A JSON value as Python writes it, with double quotes."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(written, cast(list[object], value)))}]"
        case Mapping():
            items = cast(Mapping[object, object], value).items()
            return "{" + ", ".join(f"{written(str(key))}: {written(inner)}" for key, inner in items) + "}"
        case _:
            return repr(value)


def _literals(value: object) -> str:
    """A value as Lark, a string with either quotes."""
    if isinstance(value, str) and "'" not in value:
        return f"({quoted(written(value))} | {quoted(repr(value))})" if repr(value).startswith("'") else quoted(written(value))
    return quoted(written(value))


def _key(name: str) -> str:
    return f"({quoted(written(name))} | {quoted(repr(name))}) {quoted(': ')}"
