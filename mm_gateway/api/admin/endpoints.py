"""The operator's part of the table of endpoints."""

from __future__ import annotations

from mm_gateway.api.admin.drain import drain, end_drain
from mm_gateway.api.admin.events import ModelEventList, list_events
from mm_gateway.api.admin.keys import change_key, delete_key, list_keys, make_key
from mm_gateway.api.admin.models import list_operator_models, manage_model
from mm_gateway.api.admin.reload import reload
from mm_gateway.api.admin.requests import cancel_request, list_requests
from mm_gateway.api.admin.usage import show_usage
from mm_gateway.api.description import examples
from mm_gateway.api.description.endpoint import ADMIN_ERRORS, Endpoint
from mm_gateway.protocol import ModelCard
from mm_gateway.protocol.admin import (
    AdminKey,
    AdminKeyList,
    DeletedKey,
    DrainReply,
    KeyFields,
    NewKey,
    OperatorModels,
    ReloadReply,
    RequestEntry,
    RequestList,
    UsageList,
)
from mm_gateway.storage.usage_store import DIMENSIONS

_STORED = (*ADMIN_ERRORS, "Unavailable")
_SPENT = {"tokens": 150, "cost": 0.0}
_KEY = {
    "object": "api_key",
    "id": "key_1f0c",
    "name": "alice",
    "source": "made",
    "created_at": 1_764_400_000.0,
    "models": None,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "tokens_per_day": 100_000,
    "tokens_per_month": None,
    "cost_per_day": None,
    "cost_per_month": None,
    "expires_at": None,
    "disabled": False,
    "used_today": _SPENT,
    "used_this_month": _SPENT,
}
_USAGE = {
    "day": "2026-11-29",
    "month": None,
    "key": "alice",
    "model": "mock",
    "endpoint": None,
    "requests": 3,
    "prompt_tokens": 60,
    "cached_tokens": 0,
    "output_tokens": 90,
    "reasoning_tokens": 0,
    "cost": 0.0,
}

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
            "target": {
                "description": "A model's name, a slash, and `load`, `unload`, `pin`, `unpin`, `drain` or `resume`.",
                "example": "gpt2/load",
            },
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
    Endpoint(list_keys, "Operation", reply=AdminKeyList, answer={"object": "list", "data": [_KEY]}, errors=_STORED, security="admin"),
    Endpoint(
        make_key,
        "Operation",
        body=KeyFields,
        reply=NewKey,
        examples={"budget": {"name": "alice", "models": ["mock"], "tokens_per_day": 100_000, "cost_per_month": 20.0}, "plain": {}},
        answer={**_KEY, "key": "mmg-…"},
        errors=(*_STORED, "TooLarge", "NotJson"),
        security="admin",
    ),
    Endpoint(
        change_key,
        "Operation",
        body=KeyFields,
        reply=AdminKey,
        examples={"disable": {"disabled": True}, "no budget": {"tokens_per_day": None}},
        answer=_KEY,
        errors=(*_STORED, "NotFound", "TooLarge", "NotJson"),
        security="admin",
        parameters={"key_id": {"description": "The key's id, or its name.", "example": "alice"}},
    ),
    Endpoint(
        delete_key,
        "Operation",
        reply=DeletedKey,
        answer={"object": "api_key", "id": "key_1f0c", "deleted": True},
        errors=(*_STORED, "NotFound"),
        security="admin",
        parameters={"key_id": {"description": "The key's id, or its name.", "example": "alice"}},
    ),
    Endpoint(
        show_usage,
        "Operation",
        reply=UsageList,
        answer={"object": "list", "data": [_USAGE]},
        errors=_STORED,
        security="admin",
        query={
            "group_by": {
                "description": f"Of {', '.join(DIMENSIONS)}, separated by commas; default: `day,key,model`.",
                "example": "month,key",
            },
            "start": {"description": "The first day, such as `2026-11-01`, `today` or `yesterday`.", "example": "2026-11-01"},
            "end": {"description": "The last day.", "example": "today"},
            "key": {"description": "Of the key of this name alone."},
            "model": {"description": "Of this model alone."},
            "endpoint": {"description": "Of this endpoint alone, such as `/v1/chat/completions`."},
        },
    ),
)
