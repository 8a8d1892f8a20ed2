"""The values of a JSON schema in words, for people who read the description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARKDOWN_LINK = "[{name}](#{anchor})"


def in_words(schema: Mapping[str, Any], nested: list[str], link: str = MARKDOWN_LINK) -> str:
    """The values that a JSON schema allows.

    Args:
        nested: gets the names of the objects that it refers to, each once. link: how one is written.
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in nested:
            nested.append(name)
        return link.format(name=name, anchor=name.lower())
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(in_words(part, nested, link) for part in schema[key] if part.get("type") != "null"))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any value")
    if kind == "array":
        items = in_words(schema["items"], nested, link) if schema.get("items") else "any value"
        return "list" + _between(schema, "minItems", "maxItems", " entries") + f" of {items}"
    if kind == "object":
        return "object" + _between(schema, "minProperties", "maxProperties", " keys")
    if kind == "string":
        return "text" + _between(schema, "minLength", "maxLength", " characters")
    return str(kind) + _between(schema, "minimum", "maximum", "")


def _between(schema: Mapping[str, Any], low: str, high: str, unit: str) -> str:
    least, most, above = schema.get(low), schema.get(high), schema.get("exclusiveMinimum")
    if isinstance(most, int) and most >= 2**63 - 1:  # the range of 64 bits, which nobody looks up
        return ""
    bounds = [
        f"above {above}" if above is not None else "",
        f"{least} to {most}" if least is not None and most is not None else "",
        f"at least {least}" if least is not None and most is None else "",
        f"at most {most}" if most is not None and least is None else "",
    ]
    said = ", ".join(filter(None, bounds))
    return f" ({said}{unit})" if said else ""
