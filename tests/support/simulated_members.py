"""Members of a group that serve, refuse, stall, cut, are busy or slow by a plan, on a simulated clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec

from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelInfo,
    Progress,
    ReplyFields,
    TextDelta,
    Usage,
)
from mm_gateway.errors import UpstreamError

Mode = Literal["serves", "refuses", "stalls", "cuts", "is busy", "is slow", "answers nonsense"]


class Phase(msgspec.Struct, frozen=True):
    """How a member behaves from a moment on. retry_after_s: of one that is busy, as it says."""

    at: float
    mode: Mode
    retry_after_s: float | None = None


class SimulatedMember:
    """Answers with pieces that name it and the request.

    Attributes:
        starts: when requests came. running, peak: requests now, and the most at a time.
    """

    def __init__(self, name: str, phases: Sequence[Phase], first_token_s: float, context_length: int | None = None) -> None:
        self.name = name
        self.phases = phases
        self.first_token_s = first_token_s
        self.context_length = context_length
        self.starts: list[float] = []
        self.running = self.peak = 0

    def info(self) -> ModelInfo:
        return ModelInfo(id=self.name, created=0, backend="simulated", context_length=self.context_length)

    def phase(self, now: float) -> Phase:
        return [phase for phase in self.phases if phase.at <= now][-1]

    def serves_throughout(self, begin: float, end: float) -> bool:
        modes = {phase.mode for phase in self.phases if begin < phase.at <= end} | {self.phase(begin).mode}
        return modes == {"serves"}

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        now = asyncio.get_running_loop().time()
        phase = self.phase(now)
        self.starts.append(now)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            yield Progress("queued")
            yield ReplyFields({"served_by": self.name})
            match phase.mode:
                case "refuses":
                    raise UpstreamError("Connection refused")
                case "answers nonsense":
                    await asyncio.sleep(self.first_token_s)
                    raise UpstreamError("sent a broken stream")
                case "is busy":
                    raise UpstreamError("busy", status=429, retry_after_s=phase.retry_after_s)
                case "stalls":
                    await asyncio.sleep(10_000)
                case "is slow":
                    await asyncio.sleep(self.first_token_s * 20)
                case "serves" | "cuts":
                    await asyncio.sleep(self.first_token_s)
            for piece in range(4):
                yield TextDelta(0, f"{request.request_id}/{self.name}/{piece} ")
                await asyncio.sleep(self.first_token_s)
                if phase.mode == "cuts" and piece == 1:
                    raise UpstreamError("broke off")
            yield ChoiceFinished(0, "stop")
            yield Usage(1, 4)
        finally:
            self.running -= 1

    async def close(self) -> None: ...


def whole_text(request_id: str, member: str) -> str:
    return "".join(f"{request_id}/{member}/{piece} " for piece in range(4))


def chat(request_id: str, text: str = "Hi") -> GenerationRequest:
    return GenerationRequest(request_id=request_id, model="all", input=ChatInput((Message("user", text),)))
