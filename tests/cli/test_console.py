"""What a person in the terminal sees of thoughts, and what the model is given of them in the next turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from mm_gateway.catalog import Catalog
from mm_gateway.cli.console import answer, chat
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Message,
    ReasoningDelta,
    TextDelta,
    Usage,
)


class Thinker:
    """A catalog of one model, and that model."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, ...]] = []

    def resolve(self, model: str) -> Thinker:
        return self

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        assert isinstance(request.input, ChatInput)
        self.asked.append(request.input.messages)
        for event in (
            ReasoningDelta(0, "Let me "),
            ReasoningDelta(0, "see."),
            TextDelta(0, "Four."),
            ChoiceFinished(0, "stop"),
            Usage(1, 3),
        ):
            yield event


def catalog() -> tuple[Catalog, Thinker]:
    model = Thinker()
    return model, model  # type: ignore[return-value]


QUESTION = [Message("user", "2 + 2?")]


async def test_the_answer_alone_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    reply = await answer(catalog()[0], "m", QUESTION, GenerationConfig(), thoughts=True)
    assert reply == Message("assistant", "Four.", reasoning="Let me see.")
    assert capsys.readouterr() == ("Four.\n", "Let me see.\n")
    await answer(catalog()[0], "m", QUESTION, GenerationConfig())  # no terminal
    assert capsys.readouterr() == ("Four.\n", "")


async def test_thoughts_can_be_hidden_and_are_part_of_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    lines: Iterator[str] = iter(["First?", "/thoughts", "Second?", "/exit"])
    models, model = catalog()
    await chat(models, "m", None, GenerationConfig(), lambda _: next(lines))
    out, err = capsys.readouterr()
    assert out == "Four.\nFour.\n"
    assert err.count("Let me see.") == 1 and "thoughts are hidden" in err
    thought = Message("assistant", "Four.", reasoning="Let me see.")
    assert model.asked[1] == (Message("user", "First?"), thought, Message("user", "Second?"))
