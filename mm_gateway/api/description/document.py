"""Builds the OpenAPI description: Litestar's routes joined with the table of endpoints, and the structs of the wire.

Handlers read their bodies by hand, for exact errors, so Litestar cannot derive it by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.routes import BaseRoute, HTTPRoute

import mm_gateway
from mm_gateway.api.description.endpoint import ERRORS, HEADERS, TAGS, Endpoint
from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.protocol import ErrorReply
from mm_gateway.protocol.messages import MessageError

_PARAMETER = re.compile(r"\{(\w+):\w+\}")
_REF = "#/components/schemas/{name}"
# What is true of whole requests, beyond the types of their fields.
_REQUESTS: dict[str, dict[str, Any]] = {
    "CompletionRequest": {"required": ["prompt"]},
    "TokenizeRequest": {"oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}]},
}
_ABOUT = """Many Hugging Face models behind one OpenAI-compatible address.

Every error of every endpoint is `{"error": {"message", "type", "param", "code"}}`; of /v1/messages, and for whoever sends the header
anthropic-version, it is `{"type": "error", "error": {"type", "message"}, "request_id"}`. A field that is not implemented is an error that
names it. Fields that are marked as extensions are not part of OpenAI's API.
"""


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The whole description, as OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0)."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            path = _PARAMETER.sub(r"{\1}", route.path_format if ":" in route.path_format else route.path)
            for method in sorted(map(str, handler.http_methods)):
                endpoint = ENDPOINTS.get((method, path))
                if endpoint is None:  # OPTIONS, HEAD, and the pages of this description itself
                    continue
                operation = _operation(endpoint, path)
                operation |= {
                    "operationId": handler.handler_name,
                    "summary": handler.summary or "",
                    "description": handler.description or "",
                }
                paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "mm_gateway", "version": mm_gateway.__version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "headers": HEADERS,
            "responses": {name: _error(description, headers) for name, (_, description, headers) in ERRORS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the configured keys; without any, none is asked for.",
                },
                "x-api-key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "The same, as Anthropic's clients send it.",
                },
            },
        },
    }


def schemas() -> dict[str, Any]:
    """JSON schema of every struct that the table names."""
    structs: set[type[msgspec.Struct]] = {ErrorReply, MessageError}
    for endpoint in ENDPOINTS.values():
        structs |= {struct for struct in (endpoint.body, endpoint.reply, endpoint.event) if struct is not None}
    _, components = msgspec.json.schema_components(sorted(structs, key=lambda struct: struct.__name__), ref_template=_REF)
    for name, schema in components.items():
        schema |= _REQUESTS.get(name, {})
    return components


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"tags": [endpoint.tag]}
    if endpoint.security:
        operation["security"] = [{"bearer": []}] if endpoint.security == "admin" else [{}, {"bearer": []}, {"x-api-key": []}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, **endpoint.parameters.get(name, {})}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}, **said} for name, said in endpoint.query.items()]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"schema": _ref(endpoint.body), "examples": {name: {"value": value} for name, value in endpoint.examples.items()}}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    limits = tuple(name for name in HEADERS if name.startswith("x-ratelimit")) if endpoint.security == "client" else ()
    ignored = ("x-mm-gateway-ignored",) if endpoint.body is not None else ()
    ok: dict[str, Any] = {"description": "The whole reply", "headers": _headers((*limits, *ignored))}
    content: dict[str, Any] = {
        "text/plain": {"schema": {"type": "string", **({"maxLength": 0} if endpoint.text is None else {"description": endpoint.text})}}
    }
    if endpoint.reply is not None:
        example = {} if endpoint.answer is None else {"example": endpoint.answer}
        content = {"application/json": {"schema": _ref(endpoint.reply), **example}}
    ok["content"] = content
    if endpoint.event is not None:
        ok["description"] = "The whole reply, or with `stream: true` its events"
        data = {
            "type": "string",
            "description": "JSON of one event; the last one is `[DONE]`.",
            "contentMediaType": "application/json",
            "contentSchema": _ref(endpoint.event),
        }
        event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
        ok["content"]["text/event-stream"] = {"schema": event, "example": endpoint.stream}
    if endpoint.events is not None:
        named = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}, "required": ["event", "data"]}
        ok["content"]["text/event-stream"] = {"schema": named | {"description": endpoint.events}}
    responses: dict[str, Any] = {"200": ok}
    for status, extra in endpoint.other_replies.items():
        responses[status] = {"headers": _headers(()), "content": {"application/json": {"schema": _ref(extra)}}, "description": "Not now"}
    responses |= {ERRORS[name][0]: {"$ref": f"#/components/responses/{name}"} for name in endpoint.errors}
    return {**operation, "responses": responses}


def _error(description: str, headers: tuple[str, ...]) -> dict[str, Any]:
    return {"description": description, "headers": _headers(headers), "content": {"application/json": {"schema": _ERRORS}}}


def _headers(more: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id", "request-id", "openai-processing-ms", *more)}


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}


_ERRORS = {"anyOf": [_ref(ErrorReply), _ref(MessageError)], "description": "The second for clients of Anthropic's API."}
