"""Asks the held-out questions of a checkpoint through the gateway's own catalog, backend and engine, and counts what is right."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.settings import ModelConfig, Settings
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationConfig, GenerationRequest, TextDelta, ToolCallDelta
from mm_gateway.errors import GatewayError
from tools.train_tiny_chat.cases import Case, Reply

_NAME = "tiny-chat"
_AT_A_TIME = 48
MAX_TOKENS = 700
"""More than any answer of the corpus has."""


@dataclass
class Score:
    """right of asked; wrong: some questions with their answers."""

    right: int = 0
    asked: int = 0
    ended: int = 0
    """Answers that ended by themselves."""
    wrong: list[tuple[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 0.0


def evaluate(folder: Path, cases: Sequence[Case], *, temperature: float = 0.0) -> dict[str, Score]:
    """Scores by skill, with `stop token` for all that no grammar ended."""
    return asyncio.run(_evaluate(folder, cases, temperature))


async def _evaluate(folder: Path, cases: Sequence[Case], temperature: float) -> dict[str, Score]:
    entry = ModelConfig(model_name=_NAME, path=str(folder.resolve()), device="cpu")
    catalog = build_catalog(Settings(models={_NAME: entry}))
    scores: dict[str, Score] = defaultdict(Score)
    free = asyncio.Semaphore(_AT_A_TIME)

    async def answer(case: Case | None) -> None:
        while case is not None:
            async with free:
                reply = await ask(catalog, case, temperature)
            right = _judge(case, reply)
            score = scores[case.skill]
            score.asked += 1
            score.right += right
            if not right:
                score.wrong.append((case.messages[-1].content, reply.text or str(reply.calls)))
            if case.grammar is None:
                scores["stop token"].asked += 1
                scores["stop token"].right += reply.finish_reason != "length"
            case = case.follow(reply) if right and case.follow is not None else None

    try:
        await asyncio.gather(*(answer(case) for case in cases))
    finally:
        await catalog.close()
    return dict(scores)


def _judge(case: Case, reply: Reply) -> bool:
    try:
        return reply.finish_reason != "length" and case.right(reply)
    except (ValueError, KeyError, IndexError, TypeError):  # no JSON, or another JSON than was asked for
        return False


async def ask(catalog: Catalog, case: Case, temperature: float) -> Reply:
    """One answer; a refusal of the gateway counts as an empty one."""
    config = GenerationConfig(max_new_tokens=MAX_TOKENS, temperature=temperature, seed=1, grammar=case.grammar)
    request = GenerationRequest(request_id="evaluation", model=_NAME, input=ChatInput(tuple(case.messages), case.tools), config=config)
    text, finish_reason = "", ""
    calls: list[list[str]] = []
    try:
        async for event in catalog.resolve(_NAME).generate(request):
            match event:
                case TextDelta(text=piece):
                    text += piece
                case ToolCallDelta(name=str(name), arguments=arguments):
                    calls.append([name, arguments])
                case ToolCallDelta(arguments=arguments):
                    calls[-1][1] += arguments
                case ChoiceFinished(finish_reason=reason):
                    finish_reason = reason
    except GatewayError as error:
        return Reply(f"refused: {error}", [], "error")
    return Reply(text, [(name, _read(arguments)) for name, arguments in calls], finish_reason)


def _read(arguments: str) -> object:
    """The text itself where a call was cut off."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def table(scores: dict[str, Score]) -> str:
    """Markdown, a row a skill."""
    rows = [f"| {skill} | {score.right} of {score.asked} | {score.share:.1%} |" for skill, score in sorted(scores.items())]
    return "\n".join(["| held-out | right | share |", "| --- | --- | --- |", *rows])
