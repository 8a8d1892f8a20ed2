"""Asks a model the held-out questions, as the gateway serves it, with greedy sampling, and counts what is right."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend, ChatInput, ChoiceFinished, GenerationConfig, GenerationRequest, TextDelta, ToolCallDelta
from mm_gateway.errors import GatewayError
from tools.train_tiny_chat.cases import Case, Reply

_AT_A_TIME = 48
_MAX_TOKENS = 700
"""More than a right answer to any of the questions needs."""


@dataclass
class Score:
    """right of asked; wrong: questions with their answers."""

    right: int = 0
    asked: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 0.0


def evaluate(model: str, cases: Sequence[Case]) -> dict[str, Score]:
    """Scores by skill, with `stop token` for all that no grammar ended.

    model: the folder of a checkpoint, or a name in config/models.yaml.
    """
    folder = Path(model)
    described = Settings(models={model: ModelConfig(model_name=model, path=str(folder.resolve()))})
    return asyncio.run(_evaluate(model, described if folder.is_dir() else load_settings(None, None, os.environ), cases))


async def _evaluate(model: str, settings: Settings, cases: Sequence[Case]) -> dict[str, Score]:
    catalog = build_catalog(settings)
    scores: dict[str, Score] = defaultdict(Score)
    free = asyncio.Semaphore(_AT_A_TIME)

    async def answer(case: Case) -> None:
        async with free:
            reply = await _ask(catalog.resolve(model), case)
        ended = reply.finish_reason != "length"
        try:
            right = ended and case.right(reply)
        except (ValueError, KeyError, IndexError, TypeError):  # no JSON, or another JSON than was asked for
            right = False
        for skill, counts in (case.skill, right), *([("stop token", ended)] if case.grammar is None else []):
            scores[skill].asked += 1
            scores[skill].right += counts
        if not right:
            scores[case.skill].wrong.append((case.messages[-1].content, reply.text or str(reply.calls)))

    try:
        await asyncio.gather(*(answer(case) for case in cases))
    finally:
        await catalog.close()
    return dict(scores)


async def _ask(backend: Backend, case: Case) -> Reply:
    """One answer; a refusal of the gateway counts as a wrong one."""
    config = GenerationConfig(max_new_tokens=_MAX_TOKENS, temperature=0.0, seed=1, grammar=case.grammar)
    asked = ChatInput(tuple(case.messages), case.tools)
    request = GenerationRequest(request_id="evaluation", model=backend.info().id, input=asked, config=config)
    reply = Reply("", [], "")
    try:
        async for event in backend.generate(request):
            match event:
                case TextDelta(text=piece):
                    reply.text += piece
                case ToolCallDelta(name=str(name), arguments=arguments):
                    reply.calls.append((name, arguments))
                case ToolCallDelta(arguments=arguments):
                    name, before = reply.calls[-1]
                    reply.calls[-1] = (name, before + arguments)
                case ChoiceFinished(finish_reason=reason):
                    reply.finish_reason = reason
    except GatewayError as error:
        return Reply(f"refused: {error}", [], "error")
    return reply


def table(scores: dict[str, Score]) -> str:
    """Markdown, a row a skill."""
    rows = [f"| {skill} | {score.right} of {score.asked} | {score.share:.1%} |" for skill, score in sorted(scores.items())]
    return "\n".join(["| held-out | right | share |", "| --- | --- | --- |", *rows])
