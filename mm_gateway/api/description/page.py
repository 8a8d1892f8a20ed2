"""The OpenAPI description as one page for people: made here, without scripts and without anything from other servers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mm_gateway.api.description.words import in_words

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .25rem .5rem; }
th, td { text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
code, pre { font: .9em ui-monospace, monospace; }
pre { overflow-x: auto; padding: .5rem; background: color-mix(in srgb, currentColor 8%, transparent); }
article { margin: 1.5rem 0; }
nav h2 { font-size: 1rem; margin: .5rem 0 0; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but the page itself and its own style."""


def render(described: Mapping[str, Any]) -> str:
    """HTML of what `document` returned."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters["prose"] = _prose  # pyright: ignore[reportUnknownMemberType] - jinja2 leaves its type open
    operations = list(_operations(described))
    tags = [{**tag, "operations": [each for each in operations if tag["name"] in each["tags"]]} for tag in described["tags"]]
    schemas: Mapping[str, Any] = described["components"]["schemas"]
    objects = [
        {"name": name, "description": schema.get("description", ""), "fields": list(_fields(schema))}
        for name, schema in sorted(schemas.items())
        if schema.get("properties")
    ]
    template = environment.get_template("page.html.jinja")
    return template.render(info=described["info"], tags=tags, objects=objects, style=markupsafe.Markup(_STYLE))


def _operations(described: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    responses: Mapping[str, Any] = described["components"]["responses"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            replies: list[tuple[str, str, str | None]] = []
            for status, reply in operation["responses"].items():
                known = responses[_name(reply["$ref"])] if "$ref" in reply else reply
                schema = known.get("content", {}).get("application/json", {}).get("schema", {})
                replies.append((status, known["description"], _name(schema["$ref"]) if "$ref" in schema else None))
            yield {
                "id": operation["operationId"],
                "method": method.upper(),
                "path": path,
                "tags": operation["tags"],
                "summary": operation["summary"],
                "description": operation["description"],
                "parameters": [
                    {"name": each["name"], "value": _value(each["schema"]), "meaning": each.get("description", "")}
                    for each in operation.get("parameters", ())
                ],
                "body": _name(body["schema"]["$ref"]) if body else None,
                "examples": [
                    (name, json.dumps(example["value"], indent=2, ensure_ascii=False)) for name, example in body.get("examples", {}).items()
                ],
                "replies": replies,
            }


def _fields(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, field in schema["properties"].items():
        meaning = field.get("description", "")
        yield {"name": name, "value": _value(field), "meaning": meaning, "required": name in schema.get("required", ())}


def _value(schema: Mapping[str, Any]) -> markupsafe.Markup:
    """In words; names of objects are links, everything else is escaped."""
    words = str(markupsafe.escape(in_words(schema, [], link="\0{name}\0")))
    return _code(re.sub("\0(.+?)\0", lambda found: f'<a href="#object-{found[1].lower()}">{found[1]}</a>', words))


def _prose(text: str) -> markupsafe.Markup:
    """A text that marks code with backticks."""
    return _code(str(markupsafe.escape(text)))


def _code(escaped: str) -> markupsafe.Markup:
    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]
