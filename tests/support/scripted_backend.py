"""A Backend that plays a script of events, and the application over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import GenerationEvent, GenerationRequest, ModelInfo

Step = GenerationEvent | BaseException | float
"""An event to yield, an exception to raise, or seconds to wait."""


class ScriptedBackend:
    """Plays `script` for every request. requests: those that came. closed: how many generators have cleaned up."""

    def __init__(self, script: Sequence[Step], name: str = "scripted") -> None:
        self.script = script
        self.name = name
        self.requests: list[GenerationRequest] = []
        self.started = 0
        self.closed = 0

    def info(self) -> ModelInfo:
        return ModelInfo(id=self.name, created=1_700_000_000, backend="scripted", context_length=128)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        self.requests.append(request)
        self.started += 1
        try:
            for step in self.script:
                match step:
                    case float() | int():
                        await asyncio.sleep(step)
                    case BaseException():
                        raise step
                    case _:
                        yield step
        finally:
            self.closed += 1

    async def close(self) -> None:
        self.name = "closed"


def app_over(*backends: ScriptedBackend, limits: LimitSettings | None = None, keys: tuple[ApiKey, ...] = (), **server: Any) -> GatewayApp:
    settings = Settings(server=ServerSettings(**server), limits=limits or LimitSettings(), keys=keys)
    return create_app(settings, Catalog({backend.name: backend for backend in backends}, aliases={"an-alias": backends[0].name}))
