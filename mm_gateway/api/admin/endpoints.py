"""The operator's part of the table of endpoints."""

from __future__ import annotations

from mm_gateway.api.admin.drain import drain, end_drain
from mm_gateway.api.admin.events import ModelEventList, list_events
from mm_gateway.api.admin.models import list_operator_models, manage_model
from mm_gateway.api.admin.reload import reload
from mm_gateway.api.admin.requests import cancel_request, list_requests
from mm_gateway.api.description import examples
from mm_gateway.api.description.endpoint import ADMIN_ERRORS, Endpoint
from mm_gateway.protocol import ModelCard
from mm_gateway.protocol.admin import DrainReply, OperatorModels, ReloadReply, RequestEntry, RequestList

ADMIN_ROWS = (
    Endpoint(list_operator_models, "Operation", reply=OperatorModels, errors=ADMIN_ERRORS, security="admin"),
    Endpoint(list_requests, "Operation", reply=RequestList, errors=ADMIN_ERRORS, security="admin"),
    Endpoint(
        cancel_request,
        "Operation",
        reply=RequestEntry,
        errors=(*ADMIN_ERRORS, "NotFound"),
        security="admin",
        parameters={"request_id": {"description": "Its `x-request-id`.", "example": "req_0"}},
    ),
    Endpoint(list_events, "Operation", reply=ModelEventList, errors=ADMIN_ERRORS, security="admin"),
    Endpoint(
        manage_model,
        "Operation",
        reply=ModelCard,
        answer=examples.CARD,
        errors=(*ADMIN_ERRORS, "NotFound", "Unavailable"),
        security="admin",
        parameters={
            "target": {"description": "A model's name, a slash, and `load`, `unload`, `pin` or `unpin`.", "example": "gpt2/load"},
        },
    ),
    Endpoint(
        reload,
        "Operation",
        reply=ReloadReply,
        answer={"object": "reload", "added": ["qwen3"], "changed": [], "removed": ["gpt2"], "keys": 2, "restart": ["server.port"]},
        errors=ADMIN_ERRORS,
        security="admin",
    ),
    Endpoint(
        drain,
        "Operation",
        reply=DrainReply,
        answer={"object": "drain", "draining": True, "running": 3},
        errors=ADMIN_ERRORS,
        security="admin",
    ),
    Endpoint(
        end_drain,
        "Operation",
        reply=DrainReply,
        answer={"object": "drain", "draining": False, "running": 3},
        errors=(*ADMIN_ERRORS, "Unavailable"),
        security="admin",
    ),
)
