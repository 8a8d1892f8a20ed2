"""Each request that asks for work is one trace, by the conventions for generative AI, from its client on to other servers."""

from __future__ import annotations

import asyncio
import builtins
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import mm_gateway
from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.observation.tracing import Tracing
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.configuration.tracing_settings import TracingSettings
from mm_gateway.core import ChoiceFinished, ReasoningDelta, TextDelta, ToolCallDelta, Usage, UsageSoFar
from mm_gateway.errors import ConfigurationError, EngineError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.upstream_server import sse_body, upstream

CHAT = "/v1/chat/completions"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCRIPT: list[Step] = [UsageSoFar(7, 0), TextDelta(0, "an answer"), ChoiceFinished(0, "stop"), Usage(7, 3, cached_tokens=2)]


def body(model: str = "scripted", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a question"}], **fields}


async def traced(app: GatewayApp, *requests: tuple[str, dict[str, Any], dict[str, str]], **settings: Any) -> list[ReadableSpan]:
    """Spans of requests (path, body, headers), in the order of their ends."""
    exporter = InMemorySpanExporter()
    app.state.tracing = tracing = Tracing(TracingSettings(**settings), exporter)
    app.state.observers.append(tracing)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=120) as client:
        for path, json_body, headers in requests:
            await client.post(path, json=json_body, headers=headers)
        await client.get("/v1/models")
        await client.get("/health")
    await app.state.catalog.close()
    await asyncio.to_thread(tracing.close)
    return list(exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_is_a_span_by_the_conventions_without_contents() -> None:
    [span] = await traced(app_over(ScriptedBackend(SCRIPT)), (CHAT, body("an-alias", temperature=0.5, max_tokens=9), {}))
    assert (span.name, span.kind, span.parent, span.status.status_code) == ("chat scripted", SpanKind.SERVER, None, StatusCode.UNSET)
    found = attributes(span)
    first_s = found.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first_s < 5 and found.pop("mm_gateway.request_id").startswith("req_")
    assert found == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mm_gateway",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 0,
    }
    assert span.resource.attributes["service.name"] == "mm-gateway"
    assert span.start_time is not None and span.end_time is not None and first_s <= (span.end_time - span.start_time) / 1e9 < 5


async def test_contents_are_there_where_a_setting_asks_for_them() -> None:
    script: list[Step] = [
        ReasoningDelta(0, "hm"),
        TextDelta(0, "an "),
        TextDelta(0, "answer"),
        ToolCallDelta(0, 0, '{"a"', "call_1", "f"),
        ToolCallDelta(0, 0, ": 1}"),
        ChoiceFinished(0, "tool_calls"),
        Usage(1, 1),
    ]
    [span] = await traced(app_over(ScriptedBackend(script)), (CHAT, body(stream=True), {}), contents=True)
    found = attributes(span)
    assert json.loads(found["gen_ai.input.messages"]) == [{"role": "user", "parts": [{"type": "text", "content": "a question"}]}]
    parts = [
        {"type": "reasoning", "content": "hm"},
        {"type": "text", "content": "an answer"},
        {"type": "tool_call", "name": "f", "arguments": '{"a": 1}'},
    ]
    assert json.loads(found["gen_ai.output.messages"]) == [{"role": "assistant", "parts": parts, "finish_reason": "tool_calls"}]


async def test_a_trace_goes_on_from_the_client_to_the_other_server() -> None:
    chunks = [
        {
            "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }
    ]
    data = sse_body(chunks)
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)
    async with upstream(reply) as (backend, seen):
        app = create_app(Settings(), Catalog({"far": backend}))
        asked, root = await traced(app, (CHAT, body("far", stream=True), {"traceparent": PARENT}))
    assert (root.name, asked.name, asked.kind) == ("chat far", "upstream", SpanKind.CLIENT)
    assert root.context and asked.context and root.parent and asked.parent
    assert f"{root.context.trace_id:032x}" == f"{asked.context.trace_id:032x}" == PARENT.split("-")[1]
    assert (f"{root.parent.span_id:016x}", asked.parent.span_id) == (PARENT.split("-")[2], root.context.span_id)
    [(_, headers, _)] = seen.requests
    assert headers["traceparent"] == f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-01"
    assert attributes(asked)["http.response.status_code"] == 200 and attributes(asked)["url.full"].endswith("/v1/chat/completions")


async def test_who_is_not_sampled_is_not_sent_and_says_so_to_the_other_server() -> None:
    reply = b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n"
    async with upstream(reply) as (backend, seen):
        app = create_app(Settings(), Catalog({"far": backend}))
        assert await traced(app, (CHAT, body("far"), {"traceparent": PARENT[:-1] + "0"})) == []
    assert seen.requests[0][1]["traceparent"].endswith("-00")


async def test_errors_are_errors_unless_they_are_the_clients() -> None:
    app = app_over(ScriptedBackend([TextDelta(0, "a"), EngineError("broken")]))
    whole, stream, unknown = await traced(app, (CHAT, body(), {}), (CHAT, body(stream=True), {}), (CHAT, body("unknown"), {}))
    for span in (whole, stream):
        assert span.status.status_code is StatusCode.ERROR and attributes(span)["error.type"] == "server_error"
    assert (unknown.name, unknown.status.status_code) == (f"POST {CHAT}", StatusCode.UNSET)
    assert attributes(unknown)["http.response.status_code"] == 404


async def test_the_engine_and_the_stages_of_a_workflow_have_spans_of_their_own() -> None:
    folder = Path(mm_gateway.__file__).parent / "builtin_models/tiny_chat"
    settings = Settings(models={"tiny": ModelConfig(model_name="tiny", path=str(folder), device="cpu", dtype="fp32")})
    app = create_app(settings, build_catalog(settings))
    spans = await traced(
        app, (CHAT, body("tiny", max_tokens=4), {}), ("/v1/chat/completions", body("mm-orch/chat-generate", max_tokens=4), {})
    )
    ids = {span.context.span_id: span.name for span in spans if span.context is not None}
    parents = [(span.name, ids[span.parent.span_id] if span.parent is not None else None) for span in spans]
    engine = ["load", "render", "queue", "prefill", "decode"]
    assert {name: parent for name, parent in parents[: len(engine) + 1]} == {"chat tiny": None} | dict.fromkeys(engine, "chat tiny")
    workflow = parents[len(engine) + 1 :]
    assert workflow[-1] == ("chat mm-orch/chat-generate", None)
    stages = {name for name, _ in workflow if name.startswith("stage ")}
    assert stages and all(parent == "chat mm-orch/chat-generate" for name, parent in workflow if name in stages)
    assert {parent for name, parent in workflow if name == "decode"} <= stages
    assert attributes(spans[-1])["gen_ai.workflow.name"] == "chat-generate"
    for span in spans:
        assert spans[-1].end_time and span.start_time and span.end_time and span.start_time <= span.end_time <= spans[-1].end_time


class Collector(HTTPServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.names: list[str] = []
        self.headers: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            data = gzip.decompress(data)
        server = self.server
        assert isinstance(server, Collector) and self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(data)
        server.names += [span.name for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans]
        server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


async def test_spans_go_out_by_otlp_and_the_last_ones_when_the_gateway_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
    with collector() as server:
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        backend = ScriptedBackend(SCRIPT)
        app = create_app(Settings(tracing=TracingSettings(otlp_endpoint=endpoint)), Catalog({"scripted": backend}))
        async with AsyncTestClient(app) as client:
            await client.post(CHAT, json=body())
    assert server.names == ["chat scripted"]
    assert server.headers[0]["x-token"] == "secret"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry.sdk"):
            raise ImportError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"mm-gateway\[otel\]"):
        Tracing(TracingSettings(otlp_endpoint="http://127.0.0.1:1"))
