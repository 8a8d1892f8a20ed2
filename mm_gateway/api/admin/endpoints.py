"""The operator's part of the table of endpoints."""

from __future__ import annotations

from mm_gateway.api.admin.models import manage_model
from mm_gateway.api.admin.reload import reload
from mm_gateway.api.description import examples
from mm_gateway.api.description.endpoint import ADMIN_ERRORS, Endpoint
from mm_gateway.protocol import ModelCard
from mm_gateway.protocol.admin import ReloadReply

ADMIN_ROWS = (
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
)
