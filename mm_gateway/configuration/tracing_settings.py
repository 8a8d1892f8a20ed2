"""`tracing:` of `gateway.yaml`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mm_gateway.configuration.ranges import Share


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tracing:` of `gateway.yaml`: OpenTelemetry, with the extra `otel`."""

    otlp_endpoint: Annotated[
        str | None,
        Meta(
            description="Where spans go by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; null: no traces. Its headers, "
            "timeouts and certificates are in OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_HEADERS …)."
        ),
    ] = None
    sample_ratio: Annotated[
        Share, Meta(description="Share of requests that are traced, of those whose client has not decided (by its `traceparent`).")
    ] = 1.0
    contents: Annotated[
        bool, Meta(description="Put what was asked and answered into the spans. Whoever reads the traces reads all conversations.")
    ] = False
    service_name: Annotated[str, Meta(description="What the gateway is called in traces; OTEL_RESOURCE_ATTRIBUTES adds to it.")] = (
        "mm-gateway"
    )
