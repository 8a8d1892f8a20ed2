"""The OpenAPI description: valid, complete, and true."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from litestar.routes import HTTPRoute
from litestar.testing import AsyncTestClient
from openapi_spec_validator import validate

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.description.document import document, schemas
from mm_gateway.api.description.page import render
from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from tests.support.scripted_backend import ScriptedBackend, app_over

EXAMPLES = [
    pytest.param(method.lower(), path, body, id=f"{path} {name}")
    for (method, path), endpoint in ENDPOINTS.items()
    for name, body in endpoint.examples.items()
]
CHAT_RANGES = ["temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "n"]
CHAT_RANGES += ["max_completion_tokens", "top_logprobs"]
SCHEMAS = schemas()
REQUESTS = {path: endpoint.body.__name__ for (_, path), endpoint in ENDPOINTS.items() if endpoint.body is not None}
RANGED = [
    pytest.param(path, field, keyword, branch[keyword], id=f"{path} {field} {keyword}")
    for path, fields in {
        "/v1/chat/completions": CHAT_RANGES,
        "/v1/completions": ["best_of", "logprobs", "n"],
        "/v1/embeddings": ["dimensions"],
    }.items()
    for field in fields
    for branch in SCHEMAS[REQUESTS[path]]["properties"][field]["anyOf"]
    for keyword in ("minimum", "maximum", "exclusiveMinimum")
    if keyword in branch
]
LEAST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "mock", "messages": [{"role": "user", "content": "Hi"}], "logprobs": True},
    "/v1/completions": {"model": "mock", "prompt": "Hi"},
    "/v1/embeddings": {"model": "mock", "input": "Hi"},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> GatewayApp:
    settings = Settings(
        models={"mock": ModelConfig(model_name="mock", backend="mock")},
        server=ServerSettings(api_keys=("key",), admin_keys=("key",)),
        storage=StorageSettings(folder=str(tmp_path_factory.mktemp("data"))),
    )
    return create_app(settings, build_catalog(settings))


@pytest.fixture(scope="module")
def described(app: GatewayApp) -> dict[str, Any]:
    return document(app.routes)


@pytest.fixture(scope="module")
async def client(app: GatewayApp) -> AsyncIterator[AsyncTestClient]:
    async with AsyncTestClient(app) as client:
        client.headers.update({"authorization": "Bearer key"})
        yield client


def schema_of(described: dict[str, Any], name: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": described["components"]})


def test_it_is_valid(described: dict[str, Any]) -> None:
    validate(described)


async def test_it_is_served_as_json_and_as_a_page(client: AsyncTestClient, described: dict[str, Any]) -> None:
    reply = await client.get("/schema/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == json.loads(json.dumps(described))
    page = await client.get("/schema")
    assert page.headers["content-type"].startswith("text/html") and "/schema/openapi.json" in page.text
    assert all(f'id="{operation["operationId"]}"' in page.text for methods in described["paths"].values() for operation in methods.values())
    missing = await client.get("/schema/nothing")
    assert (missing.status_code, set(missing.json()["error"])) == (404, {"message", "type", "param", "code"})


async def test_the_page_runs_no_script_and_loads_nothing(client: AsyncTestClient) -> None:
    page = await client.get("/schema")
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert page.headers["content-security-policy"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert not re.search(r"<script|<link|<img|<iframe|src=|@import|url\(|javascript:", page.text)
    assert set(re.findall(r'href="([^"#]+)"', page.text)) == {"/schema/openapi.json"}


def test_the_page_escapes_what_it_shows(described: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script> `<b>`"
    changed = json.loads(json.dumps(described))
    changed["info"]["description"] = evil
    changed["components"]["schemas"]["ChatMessage"]["properties"]["role"] = {"enum": [evil], "description": evil}
    assert "<script" not in render(changed) and "<b>" not in render(changed)


def test_every_link_within_the_page_leads_somewhere(described: dict[str, Any]) -> None:
    page = render(described)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))


def test_every_route_is_described_and_nothing_else(app: GatewayApp, described: dict[str, Any]) -> None:
    served = {
        (method, re.sub(r":\w+", "", route.path))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in map(str, route.methods)
        if method not in ("HEAD", "OPTIONS") and not (route.path == "/" or route.path.startswith(("/schema", "/page/")))
    }
    assert served == set(ENDPOINTS)
    assert served == {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    for item in described["paths"].values():
        for operation in item.values():
            assert operation["summary"] and operation["operationId"] and operation["responses"]["200"]["content"]


def test_every_field_of_every_request_is_described(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    requests = [endpoint.body.__name__ for endpoint in ENDPOINTS.values() if endpoint.body is not None]
    silent = [
        f"{name}.{field}" for name in requests for field, schema in schemas[name]["properties"].items() if "description" not in schema
    ]
    assert silent == []


@pytest.mark.parametrize(("method", "path", "body"), EXAMPLES)
async def test_every_example_fits_its_schema_and_is_accepted(
    client: AsyncTestClient, described: dict[str, Any], method: str, path: str, body: dict[str, Any]
) -> None:
    operation = described["paths"][path][method]
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema_of(described, name).validate(body)
    if "{" in path:  # what it is about would have to be there
        return
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    if "text/event-stream" in reply.headers["content-type"]:
        event = ENDPOINTS["POST", path].event
        if event is not None:
            check_stream(described, event, reply.text)
    else:
        answer = ENDPOINTS["POST", path].reply
        assert answer is not None
        schema_of(described, answer.__name__).validate(reply.json())


@pytest.mark.parametrize(("key", "endpoint"), ENDPOINTS.items(), ids=map(" ".join, ENDPOINTS))
def test_every_shown_answer_fits_its_schema(described: dict[str, Any], key: Any, endpoint: Any) -> None:
    if endpoint.answer is not None:
        schema_of(described, endpoint.reply.__name__).validate(endpoint.answer)
    assert (endpoint.stream is None) == (endpoint.event is None)
    if endpoint.event is not None:
        check_stream(described, endpoint.event, endpoint.stream)


def check_stream(described: dict[str, Any], event: type[msgspec.Struct], text: str) -> None:
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    for line in events:
        schema_of(described, event.__name__).validate(json.loads(line.removeprefix("data: ")))


@pytest.mark.parametrize(("path", "field", "keyword", "bound"), RANGED)
async def test_ranges_are_those_that_are_enforced(client: AsyncTestClient, path: str, field: str, keyword: str, bound: float) -> None:
    beyond = bound - 1 if keyword == "minimum" else bound + 1 if keyword == "maximum" else bound
    within = bound + 0.01 if keyword == "exclusiveMinimum" else bound
    refused = await client.post(path, json={**LEAST[path], field: beyond})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    accepted = await client.post(path, json={**LEAST[path], field: within})
    assert accepted.status_code == 200, accepted.text


@pytest.mark.parametrize("path", sorted({path for _, path in ENDPOINTS}))
async def test_other_methods_and_media_types_get_the_envelope(client: AsyncTestClient, path: str) -> None:
    target = (
        path.replace("{model_id}", "mock")
        .replace("{target}", "mock/load")
        .replace("{response_id}", "resp_1")
        .replace("{request_id}", "req_1")
    )
    served = {method for method, other in ENDPOINTS if other == path}
    for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - served):
        reply = await client.request(method, target)
        assert reply.status_code == 405
        assert set(reply.json()["error"]) == _envelope(path)
        assert served <= set(reply.headers["allow"].replace(" ", "").split(","))
    if ENDPOINTS.get(("POST", path)) and ENDPOINTS["POST", path].body is not None:
        for kind in ("text/plain", "multipart/form-data; boundary=x", "application/jsonx", "é", "application/xml"):
            reply = await client.post(target, content=b"{}", headers={b"content-type": kind.encode()})
            assert (reply.status_code, set(reply.json()["error"])) == (415, _envelope(path))
        for kind in ("application/json; charset=utf-8", "APPLICATION/JSON"):
            assert (await client.post(target, content=b"[]", headers={"content-type": kind})).status_code == 400


def _envelope(path: str) -> set[str]:
    return {"message", "type"} if path.startswith("/v1/messages") else {"message", "type", "param", "code"}


async def test_headers_are_those_that_are_described(described: dict[str, Any]) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([]))) as client:
        reply = await client.get("/v1/models")
    for name in described["paths"]["/v1/models"]["get"]["responses"]["200"]["headers"]:
        if name.startswith("x-ratelimit"):  # only where there are limits
            continue
        schema = described["components"]["headers"][name]["schema"]
        value: Any = int(reply.headers[name]) if schema["type"] == "integer" else reply.headers[name]
        jsonschema_rs.Draft202012Validator(schema).validate(value)
