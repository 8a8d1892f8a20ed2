"""Requests as OpenTelemetry's traces, by its conventions for generative AI: one span a request, with those of its timeline below it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mm_gateway.api.observation.contents import Contents
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.configuration.settings import WORKFLOW_PREFIX
from mm_gateway.configuration.tracing_settings import TracingSettings
from mm_gateway.core import ForwardedBody, GenerationEvent, GenerationRequest
from mm_gateway.errors import ConfigurationError
from mm_gateway.timeline import SpanName, Timeline

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""By endpoint, in the words of the conventions; other endpoints are spans of HTTP alone."""
_NAMES = {
    "model": "gen_ai.request.model",
    "url": "url.full",
    "host": "server.address",
    "status": "http.response.status_code",
    "stage": "mm_gateway.stage",
    "fault": "mm_gateway.fault",
}


class RequestTrace:
    """The spans of one request; what its timeline tells. Made by `Tracing.begin`."""

    def __init__(self, root: Span, tracing: Tracing, contents: Contents | None) -> None:
        self._root = root
        self._tracing = tracing
        self._contents = contents
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def begin(self, name: SpanName, started: float, attributes: Mapping[str, Any], parent: Any) -> Any:
        from opentelemetry import trace

        span = self._tracing.tracer.start_span(
            f"stage {attributes['stage']}" if name == "stage" else name,
            trace.set_span_in_context(parent if parent is not None else self._root),
            trace.SpanKind.CLIENT if name == "upstream" else trace.SpanKind.INTERNAL,
            start_time=self._at(started),
        )
        return span

    def end(self, span: Any, ended: float, attributes: Mapping[str, Any], error: BaseException | None) -> None:
        span.set_attributes({_NAMES[name]: value for name, value in attributes.items() if value is not None})
        # A generator that is closed, a task that is cancelled: nobody wants the rest, which is no error.
        if isinstance(error, Exception):
            self._fail(span, type(error).__name__)
        span.end(self._at(ended))

    def headers(self, span: Any) -> dict[str, str]:
        from opentelemetry import trace

        carrier: dict[str, str] = {}
        self._tracing.propagator.inject(carrier, trace.set_span_in_context(span))
        return carrier

    def asked(self, request: GenerationRequest | ForwardedBody) -> None:
        """What a backend is asked."""
        self._root.set_attributes(_parameters(request))
        if self._contents is not None:
            self._contents.asked(request)

    @property
    def listener(self) -> Callable[[GenerationEvent], None] | None:
        """To be told what it answers; None: nobody wants to know."""
        return None if self._contents is None else self._contents.event

    def finish(self, record: RequestRecord) -> None:
        operation = OPERATIONS.get(record.endpoint)
        self._root.update_name(
            f"{operation} {record.model}" if operation and record.model else f"{record.method} {record.endpoint}".strip()
        )
        self._root.set_attributes(_attributes(record, operation))
        if self._contents is not None:
            self._root.set_attributes(self._contents.attributes(record.finish_reasons))
        # Of a server's span, what is the client's fault is no error.
        if record.error is not None and ((record.status or 500) >= 500 or record.status == 200):
            self._fail(self._root, record.error_code)
        self._root.end(self._at(record.ended if record.ended is not None else time.monotonic()))

    def _fail(self, span: Span, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR)

    def _at(self, seconds: float) -> int:
        """On the clock of traces, nanoseconds since 1970."""
        return self._epoch_ns + int(seconds * 1e9)


class Tracing:
    """Begins a trace for each request that asks for work, and ends it as an observer.

    Args:
        exporter: where spans go; None: as the settings say.

    Raises:
        ConfigurationError: the packages of the extra are missing.
    """

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            text = f"tracing.otlp_endpoint is set, but {error.name} is not installed. Install the extra: pip install 'mm-gateway[otel]'"
            raise ConfigurationError(text) from error
        self._settings = settings
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource.create({"service.name": settings.service_name}),
            shutdown_on_exit=False,  # `close` does it, in time
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
        self.tracer = self._provider.get_tracer("mm_gateway")
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, record: RequestRecord, path: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestTrace | None:
        """Follow a request, as a part of the trace that its headers name, else as one of its own; None: it only looks at the gateway."""
        from opentelemetry.trace import SpanKind

        if record.method != "POST" or path.startswith("/admin"):
            return None
        known = {name.decode(): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")}
        context = self.propagator.extract(known)
        root = self.tracer.start_span(record.method, context, SpanKind.SERVER, start_time=int(record.arrived_at * 1e9))
        followed = RequestTrace(root, self, Contents() if self._settings.contents and root.is_recording() else None)
        record.timeline = Timeline(followed, record.request_id)
        return followed

    def finished(self, record: RequestRecord) -> None:
        if isinstance(record.timeline.follower, RequestTrace):
            record.timeline.follower.finish(record)

    def close(self) -> None:
        """Send what is left; blocks for seconds where nobody takes it."""
        self._provider.shutdown()


def _attributes(record: RequestRecord, operation: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mm_gateway.request_id": record.request_id,
        "http.request.method": record.method,
        "http.route": record.endpoint,
        "http.response.status_code": record.status,
        "user.id": record.key or None,
        "mm_gateway.client_gone": record.client_gone or None,
    }
    if operation is not None:
        usage = record.usage
        found |= {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "mm_gateway",
            "gen_ai.request.model": record.model or None,
            "gen_ai.request.stream": record.stream,
            "gen_ai.response.finish_reasons": [*record.finish_reasons] or None,
            "gen_ai.response.time_to_first_chunk": record.time_to_first_token_s,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage is not None else None,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens if usage is not None else None,
            "gen_ai.workflow.name": record.model.removeprefix(WORKFLOW_PREFIX) if record.model.startswith(WORKFLOW_PREFIX) else None,
        }
    return {name: value for name, value in found.items() if value is not None}


def _parameters(request: GenerationRequest | ForwardedBody) -> dict[str, Any]:
    """How it is asked for; a body for another server is not read for it."""
    if isinstance(request, ForwardedBody):
        return {}
    config = request.config
    found = {
        "gen_ai.request.max_tokens": config.max_new_tokens,
        "gen_ai.request.temperature": config.temperature,
        "gen_ai.request.top_p": config.top_p,
        "gen_ai.request.seed": config.seed,
        "gen_ai.request.choice.count": config.n if config.n > 1 else None,
    }
    return {name: value for name, value in found.items() if value is not None}
