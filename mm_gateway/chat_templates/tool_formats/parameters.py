"""A function's arguments one by one, for formats that write each in a place of its own: their names, and what their values may be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from mm_gateway.chat_templates.tool_formats.format import only_declared
from mm_gateway.core import Tool

Schema = Mapping[str, Any] | bool

_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_NAMING = ("allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "unevaluatedProperties")
_MAX_DEPTH = 16
_MAX_LENGTH = 4096


class Parameter(NamedTuple):
    """One argument.

    Attributes:
        root: the schema of all arguments, which has the definitions that `schema` refers to.
    """

    name: str
    schema: Schema
    required: bool
    root: Mapping[str, Any]

    @property
    def types(self) -> frozenset[str]:
        """JSON's types that its value may have."""
        return _types(self.schema, self.root, 0)

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The strings that it may be, where they are listed; None: they are not."""
        found = _texts(self.schema, self.root, 0)
        return None if found is None else tuple(dict.fromkeys(found))

    @property
    def whole_schema(self) -> dict[str, Any]:
        """Its schema, with the definitions."""
        definitions = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
        return (
            {**definitions, **self.schema} if isinstance(self.schema, Mapping) else {**definitions, **({} if self.schema else {"not": {}})}
        )


def parameters_of(tool: Tool) -> tuple[list[Parameter], bool]:
    """The arguments that a function lists, in their order, and whether it takes others beside them."""
    root = only_declared(tool.parameters if tool.parameters is not None else {"properties": {}})
    listed: object = root.get("properties")
    properties = cast(Mapping[str, Schema], listed) if isinstance(listed, Mapping) else {}
    needed: object = root.get("required")
    required = cast(Sequence[object], needed) if isinstance(needed, list) else ()
    open_ended = root.get("additionalProperties") is not False or any(key in root for key in _NAMING)
    return [Parameter(name, schema, name in required, root) for name, schema in properties.items()], open_ended


def value_of(text: str, parameter: Parameter | None) -> str:
    """The JSON of a value that was written as text. None: of an argument that the function does not list."""
    types = parameter.types if parameter is not None else _TYPES
    texts = parameter.texts if parameter is not None else None
    if "string" in types and (types == {"string"} or (texts is not None and text in texts)):
        return json.dumps(text, ensure_ascii=False)
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if "string" in types and (isinstance(value, str) or _type_of(value).isdisjoint(types)):
        return json.dumps(text, ensure_ascii=False)
    return text.strip()


def length_of(schema: Mapping[str, Any], key: str) -> int | None:
    """A string's `minLength` or `maxLength`, where it can be held to it: a longer counter would be a grammar of as many states."""
    value: object = schema.get(key)
    return cast(int, value) if type(value) is int and 0 <= value <= _MAX_LENGTH else None


def referred(root: Mapping[str, Any], reference: str) -> object:
    """What a `$ref` within a schema means; None: that is not found in it."""
    found: object = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = cast(Mapping[str, object], found).get(name) if isinstance(found, Mapping) else None
    return found if reference.startswith("#") else None


def _types(schema: object, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    if not isinstance(schema, Mapping):
        return _TYPES
    of = cast(Mapping[str, Any], schema)
    found = _TYPES
    kinds: object = of.get("type")
    if isinstance(kinds, (str, list)):
        found = frozenset([kinds] if isinstance(kinds, str) else cast(list[str], kinds)) & _TYPES
    if "number" in found:
        found |= {"integer"}
    if "const" in of:
        found &= _type_of(of["const"])
    if isinstance(of.get("enum"), list):
        found &= frozenset[str]().union(*map(_type_of, of["enum"]))
    for branches, join in _branches(of, root):
        if depth < _MAX_DEPTH:
            kinds_of = [_types(branch, root, depth + 1) for branch in branches]
            found &= frozenset[str]().union(*kinds_of) if join else frozenset.intersection(*kinds_of)
    return found


def _texts(schema: object, root: Mapping[str, Any], depth: int) -> list[str] | None:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return None
    of = cast(Mapping[str, Any], schema)
    values: object = [of["const"]] if "const" in of else of.get("enum")
    if isinstance(values, list):
        return [value for value in cast(list[object], values) if isinstance(value, str)]
    if "string" not in _types(of, root, depth):
        return []
    for branches, join in _branches(of, root):
        found = [_texts(branch, root, depth + 1) for branch in branches]
        listed = [texts for texts in found if texts is not None]
        if join and len(listed) == len(found):
            return [text for texts in listed for text in texts]
        if not join and listed:
            return listed[0]
    return None


def _branches(of: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[tuple[Sequence[object], bool]]:
    """The schemas that one is made of, and whether one of them is enough."""
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(of.get(key), list) and of[key]:
            yield of[key], key != "allOf"
    reference: object = of.get("$ref")
    if isinstance(reference, str):
        yield [referred(root, reference)], True


def _type_of(value: object) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})
