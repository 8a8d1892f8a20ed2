"""A question with numbered sources in exactly the words of the search workflow, and its answer: the sentences that answer, each with [n], or that the sources do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mm_gateway.core import Message
from mm_gateway.workflows.prompts import Language, Passage, answer_messages
from tools.train_tiny_chat.corpus.conversation import Conversation
from tools.train_tiny_chat.corpus.draw import Draw

NOT_TOLD: dict[Language, str] = {"en": "The sources do not tell.", "zh": "来源没有说明。"}


Answers = list[tuple[str, int]]
MORE = 4
"""At most so many questions follow the first about the same sources: each teaches as much as the first, for the tokens of one line."""


class SourceTask(NamedTuple):
    """What the model gets, and what a right answer is."""

    conversation: Conversation
    answers: list[tuple[str, int]]
    """(text that has to be in the answer, number of its source); empty: the sources do not tell."""


def roughen(draw: Draw, question: str) -> str:
    """Sometimes as people type: in lower case at the beginning, without the question mark."""
    if draw.chance(0.12):
        question = question.rstrip("?？.。")
    if draw.chance(0.08):
        question = question[0].lower() + question[1:]
    return question


def stop(language: Language) -> str:
    return "。" if language == "zh" else "."


def cited(text: str, number: int, language: Language) -> str:
    return f"{text}[{number}]。" if language == "zh" else f"{text} [{number}].".lstrip()


def bare(text: str) -> str:
    return text.rstrip(".:;。")


def source_task(
    draw: Draw, question: str, passages: list[Passage], language: Language, answers: Answers, more: Sequence[tuple[str, Answers]] = ()
) -> SourceTask:
    messages = answer_messages(question, passages, language)
    messages.append(Message(role="assistant", content=_reply(answers, language)))
    if more and answers and draw.chance(0.3):
        more = [*more, _which(draw, passages, answers[0], language)]
    for later, its_answers in more:
        messages += [Message(role="user", content=later), Message(role="assistant", content=_reply(its_answers, language))]
    return SourceTask(Conversation("sources", tuple(messages)), answers)


def _which(draw: Draw, passages: list[Passage], answer: tuple[str, int], language: Language) -> tuple[str, Answers]:
    """Asks for the number of a source only, by what it says or by its title."""
    text, number = answer
    if draw.chance(0.5):
        number = draw.number(1, len(passages))
        text = passages[number - 1].title
        if sum(passage.title == text for passage in passages) > 1:
            text, number = answer
    asked = draw.wording(
        ["哪个来源：{t}？", "{t}在第几个来源？"]
        if language == "zh"
        else ["Which source is it: {t}?", "Where is this: {t}?", "(What|Which) number has {t}?"]
    )
    return asked.replace("{t}", text), [("", number)]


def _reply(answers: Answers, language: Language) -> str:
    reply = ("" if language == "zh" else " ").join(cited(text, number, language) for text, number in answers)
    return reply or NOT_TOLD[language]
