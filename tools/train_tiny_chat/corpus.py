"""The corpus: examples of each skill without end, drawn from the patterns and facts in `data`.

What the workflows say to a model is asked of the gateway when an example is made, so that no wording of it stands here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mm_gateway.core import Message, Tool, ToolCall
from mm_gateway.workflows import prompts
from mm_gateway.workflows.prompts import Difficulty, Language, Passage
from tools.train_tiny_chat.facts import facts
from tools.train_tiny_chat.templates import Draw, Scope, read


@dataclass(frozen=True)
class Example:
    """A conversation whose assistant turns are learned; or, without messages, a text that is learned whole, for completion."""

    skill: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    text: str = ""


def examples(seed: int, *, early: bool = False) -> Iterator[Example]:
    """Training examples without end; the same seed gives the same ones. Sums that the evaluation asks are left out.

    early: in the mixture of the first part of the training, where copying is learned, on which much else builds.
    """
    draw = Draw(seed)
    mixture = read("templates")["mixture"]
    shares = [share[early] for share in mixture.values()]
    held_out = tuple(case["sum"] for case in read("held_out")["conversations"]["arithmetic"])
    while True:
        (skill,) = draw.random.choices(list(mixture), shares)
        example = _SAMPLES.get(skill, from_templates)(draw, skill)
        if skill != "arithmetic" or not any(message.content.startswith(held_out) for message in example.messages):
            yield example


def _chat(draw: Draw, skill: str, turns: Sequence[str]) -> Example:
    """Turns of user and assistant, alternating; now and then under a system message."""
    messages = [Message(role="system", content=draw.expand("{system}"))] if draw.chance(0.3) else []
    messages += [Message(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(turns)]
    return Example(skill, tuple(messages))


def from_templates(draw: Draw, skill: str) -> Example:
    template = draw.one(read("templates")["skills"][skill])
    if isinstance(template, str):
        return Example(skill, text=draw.expand(template))
    scope: Scope = {}
    texts = [draw.expand(turn, scope).strip() for turn in template]
    return _chat(draw, skill, [text[:1].upper() + text[1:] if at % 2 else text for at, text in enumerate(texts)])


def from_facts(draw: Draw, skill: str) -> Example:
    turns: list[str] = []
    for _ in range(draw.one([1, 1, 1, 2, 3])):
        fact = draw.one(facts(skill))[_language(draw)]
        turns += [draw.expand(fact.questions), fact.answer]
    return _chat(draw, skill, turns)


def _language(draw: Draw) -> Language:
    return "zh" if draw.chance(0.33) else "en"


def _slot(name: str, language: Language) -> str:
    return f"{{{name}_zh}}" if language == "zh" else f"{{{name}}}"


class Told(NamedTuple):
    """A sentence of a source without its stop, questions that it answers (patterns), and the number of the source."""

    sentence: str
    asks: Sequence[str]
    scope: Scope
    number: int


def sources(draw: Draw, skill: str) -> Example:
    """Numbered sources and questions about them, the later ones without the sources again; some that none of them answers."""
    language = _language(draw)
    passages, told = _fact_sources(draw, language) if draw.chance(0.25) else _made_up_sources(draw, language)
    turns: list[str] = []
    for item in draw.some(told, 5):
        if draw.chance(0.12):
            elsewhere = _made_up_sources(draw, language)[1][0]
            turns += [draw.expand(elsewhere.asks, elsewhere.scope), draw.expand(_slot("sources_do_not_tell", language))]
        else:
            cited = f"{item.sentence}[{item.number}]。" if language == "zh" else f"{item.sentence} [{item.number}]."
            turns += [draw.expand(item.asks, item.scope), cited]
    later = [Message(role="assistant" if at % 2 == 0 else "user", content=text) for at, text in enumerate(turns[1:])]
    return Example(skill, (*prompts.answer_messages(turns[0], passages, language), *later))


def _made_up_sources(draw: Draw, language: Language) -> tuple[list[Passage], list[Told]]:
    passages: list[Passage] = []
    told: list[Told] = []
    stop = "。" if language == "zh" else "."
    for number in range(1, draw.one([1, 2, 2, 3, 4, 5]) + 1):
        about: Scope = {}
        draw.expand(_slot("thing", language), about)
        title = draw.expand(read("templates")["titles"][language], about)
        body: list[str] = []
        for statement in draw.some(read("templates")["statements"][language], 4):
            scope = dict(about)
            sentence = draw.expand(statement["says"], scope)
            told.append(Told(sentence[0].upper() + sentence[1:], statement["asks"], scope, number))
            body.append(told[-1].sentence + stop)
        text = ("" if language == "zh" else " ").join(draw.random.sample(body, len(body))) + draw.expand(_slot("filler", language))
        passages.append(Passage(title, text))
    return passages, told


def _fact_sources(draw: Draw, language: Language) -> tuple[list[Passage], list[Told]]:
    """Facts about the gateway under their questions, as the search finds them in docs/questions.*.md."""
    chosen = [draw.one(facts("gateway"))[language] for _ in range(draw.one([2, 3, 4, 5]))]
    passages = [Passage(draw.expand(fact.questions), fact.answer) for fact in chosen]
    return passages, [Told(fact.answer.rstrip(".。"), fact.questions, {}, number) for number, fact in enumerate(chosen, 1)]


def lessons(draw: Draw, skill: str) -> Example:
    """A stage of the lesson workflow, in its words and its JSON."""
    language = _language(draw)
    level: Difficulty = draw.one(["beginner", "intermediate", "advanced"])
    data = read("templates")["lessons"][language]
    scope: Scope = {}
    topic = draw.expand(_slot("topic", language), scope)
    first, *middle, last = (draw.expand(name, scope) for name in data[level])
    sections = [first, *draw.some(middle, 3), last]

    def content(section: str) -> str:
        sentences = [*draw.some(data["sentences"], 3), data["example"]]
        return ("" if language == "zh" else " ").join(draw.expand(text, scope | {"section": section}) for text in sentences)

    value: Any
    match draw.one(["plan", "explanation", "exercises"]):
        case "plan":
            messages, value = prompts.plan_messages(topic, level, language), {"sections": sections}
        case "explanation":
            messages = prompts.explanation_messages(topic, level, language, sections, include_examples=True)
            value = {"topic": topic, "sections": [{"name": section, "content": content(section)} for section in sections]}
        case _:
            scope["section"] = draw.one(sections).rstrip("?？")
            pairs = draw.some(data["exercises"], 5)
            messages = prompts.exercises_messages(topic, level, language, sections, len(pairs))
            value = [{"question": draw.expand(question, scope), "answer": draw.expand(answer, scope)} for question, answer in pairs]
    # As constrained decoding writes JSON: no blanks.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Example(skill, (*messages, Message(role="assistant", content=text)))


def tools(draw: Draw, skill: str) -> Example:
    """One of the tools that are offered is called, and its result is told."""
    chosen = draw.random.sample(read("templates")["tools"], draw.one([1, 2, 3]))
    scopes: list[Scope] = [{} for _ in chosen]
    offered: list[Tool] = []
    for tool, scope in zip(chosen, scopes, strict=True):
        properties = {name: {"type": kind} for name, (kind, _) in tool["parameters"].items()}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        offered.append(Tool(draw.expand(tool["name"], scope), draw.expand(tool["description"], scope), schema))
    tool, scope = chosen[-1], scopes[-1]  # the one that is called
    for name, (_, value) in tool["parameters"].items():
        scope[name] = draw.expand(value, scope)
    arguments = {name: int(scope[name]) if kind == "integer" else scope[name] for name, (kind, _) in tool["parameters"].items()}
    call = ToolCall("call_0", offered[-1].name, json.dumps(arguments, ensure_ascii=False))
    messages = [
        Message(role="user", content=draw.expand(tool["asks"], scope)),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content=draw.expand(tool["result"], scope), tool_call_id="call_0"),
        Message(role="assistant", content=draw.expand(tool["answer"], scope)),
    ]
    return Example(skill, tuple(messages), tuple(draw.random.sample(offered, len(offered))))


_SAMPLES = {"gateway": from_facts, "general": from_facts, "small_talk": from_facts, "sources": sources, "lessons": lessons, "tools": tools}
