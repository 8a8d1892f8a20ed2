"""The held-out questions of the evaluation, and what a right answer to each is, whichever model gives it.

Answers are judged by what they hold and cite, not by tiny-chat's wording of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.core import Grammar, Message, Tool, ToolCall, ToolUse
from mm_gateway.search.fitting import Source, fit
from mm_gateway.search.local import documentation_index
from mm_gateway.search.local_index import LocalIndex, UrlOf
from mm_gateway.workflows.lesson_schemas import exercises_grammar, explanation_grammar, plan_grammar
from mm_gateway.workflows.prompts import Language, Passage, answer_messages, exercises_messages, explanation_messages, plan_messages
from tools.train_tiny_chat.facts import Wording, facts
from tools.train_tiny_chat.templates import First, read

_ROOM_TOKENS = 1250
"""For sources: what search-qa gives them in tiny-chat's context of 2048 tokens, of which it keeps 512 for the answer."""
_BYTES_A_TOKEN = 2.5
"""Of the repository's documents with tiny-chat's tokenizer, at least: every model gets the same sources."""
_SYSTEMS = ("You are a helpful assistant.", "请简短地回答。")
_DOES_NOT_KNOW = re.compile(
    r"n[o']t (\w+ )?(tell|say|know|sure|mention|state|specif|provide|contain|answer|have)|cannot|no information|unknown"
    r"|没有(说明|提|说|告诉|相关)|未(提|说明)|不知道|不清楚|无法",
    re.IGNORECASE,
)


@dataclass
class Reply:
    """calls: (name, arguments as JSON) each."""

    text: str
    calls: list[tuple[str, str]]
    finish_reason: str


@dataclass(frozen=True)
class Case:
    """One question. right: whether a reply answers it."""

    skill: str
    messages: Sequence[Message]
    right: Callable[[Reply], bool]
    tools: ToolUse | None = None
    grammar: Grammar | None = None


def all_cases() -> list[Case]:
    data = read("held_out")
    cases = [*_facts("gateway facts", "gateway"), *_facts("general facts", "general"), *_facts("small talk", "small_talk"), *_searches()]
    cases += [_source(skill, case) for skill, entries in data["sources"].items() for case in entries]
    cases += [_conversation(skill, case) for skill, entries in data["conversations"].items() for case in entries]
    cases += [_tools(case) for case in data["tools"]]
    return cases + [stage for case in data["lessons"] for stage in _lesson(**case)]


def _facts(skill: str, name: str) -> Iterator[Case]:
    """Each fact by its held-out question, in both languages, under no system message and under one."""
    for at, fact in enumerate(facts(name)):
        for language, wording in fact.items():
            question = Message(role="user", content=First(0).expand(wording.held_out))
            system = Message(role="system", content=_SYSTEMS[at % len(_SYSTEMS)])
            for messages in ([question], [system, question]):
                yield Case(f"{skill} {language}", messages, lambda reply, wording=wording: wording.told_in(reply.text))


def _cited(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\[(\d+)\]", text)}


def _holds(text: str, needs: Sequence[str]) -> bool:
    return all(need.lower() in text.lower() for need in needs)


def _searches() -> Iterator[Case]:
    """search-qa over the repository's documents, asked for each fact about the gateway; every source that is cited has to tell it.

    Where the search finds no source that does, a right answer is that they do not tell.
    """
    index = documentation_index()
    for fact in facts("gateway"):
        for language, wording in fact.items():
            question = First(0).expand(wording.held_out)
            passages = _searched(question, index)
            telling = {number for number, passage in enumerate(passages, 1) if wording.told_in(passage.text)}
            skill = f"search in the documents {language}" if telling else "search in the documents: not found"

            def right(reply: Reply, wording: Wording = wording, telling: set[int] = telling) -> bool:
                if not telling:
                    return _DOES_NOT_KNOW.search(reply.text) is not None
                cited = _cited(reply.text)
                return bool(cited) and cited <= telling and wording.told_in(reply.text)

            yield Case(skill, answer_messages(question, passages, language), right)


def _searched(question: str, index: LocalIndex) -> list[Passage]:
    """The passages that search-qa gives a model by default."""
    settings = SearchSettings()
    sources = [Source(result.title, result.text or "") for result in index.search(question, settings.max_results, UrlOf())]

    async def count(texts: Sequence[str]) -> list[int]:
        return [int(len(text.encode()) / _BYTES_A_TOKEN) for text in texts]

    texts = asyncio.run(fit(question, sources, count, room_tokens=_ROOM_TOKENS, max_source_tokens=settings.max_source_tokens))
    return [Passage(source.title, text) for source, text in zip(sources, texts, strict=False)]


def _source(skill: str, case: dict[str, Any]) -> Case:
    """Right: what was asked for, with the number of its source and no other; or that the sources do not tell."""
    messages = answer_messages(case["question"], [Passage(*source) for source in case["sources"]], case["language"])

    def right(reply: Reply) -> bool:
        if "cites" not in case:
            return _DOES_NOT_KNOW.search(reply.text) is not None
        return _cited(reply.text) == {case["cites"]} and _holds(reply.text, case["needs"])

    return Case(skill, messages, right)


def _conversation(skill: str, case: dict[str, Any]) -> Case:
    """turns: of user and assistant, alternating. Of a sum the last number has to be right; without needs, that it does not know."""
    messages = [Message(role="system", content=case["system"])] if "system" in case else []
    messages += [Message(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(case["turns"])]

    def right(reply: Reply) -> bool:
        if skill == "arithmetic":
            return re.findall(r"-?\d+", reply.text)[-1:] == case["needs"]
        return _holds(reply.text, case["needs"]) if "needs" in case else _DOES_NOT_KNOW.search(reply.text) is not None

    return Case(skill, messages, right)


def _tools(case: dict[str, Any]) -> Case:
    """The right tool with the right values; or an answer that holds what the tool returned."""
    name, arguments = case["call"]
    messages = [Message(role="system", content=case["system"])] if "system" in case else []
    messages.append(Message(role="user", content=case["question"]))
    offered = []
    for tool, description, kinds in case["tools"]:
        properties = {key: {"type": "string", "enum": kind} if isinstance(kind, list) else {"type": kind} for key, kind in kinds.items()}
        offered.append(Tool(tool, description, {"type": "object", "properties": properties, "required": list(properties)}))
    use = ToolUse(tools=tuple(offered))
    if "result" not in case:

        def called(reply: Reply) -> bool:
            return [(tool, json.loads(text)) for tool, text in reply.calls] == [(name, arguments)]

        return Case("tool calls", messages, called, tools=use)
    call = ToolCall("call_0", name, json.dumps(arguments, ensure_ascii=False))
    messages.append(Message(role="assistant", content="", tool_calls=(call,)))
    messages.append(Message(role="tool", content=case["result"], tool_call_id="call_0"))
    return Case("answers from tool results", messages, lambda reply: _holds(reply.text, case["needs"]), tools=use)


def _lesson(topic: str, language: Language, level: Any, exercises: int) -> Iterator[Case]:
    """The three stages of a lesson, each under the workflow's grammar; right where it is complete and about the topic."""
    sections = [text.replace("{topic}", topic) for text in read("held_out")["sections"][language]]

    def plan(reply: Reply) -> bool:
        names = json.loads(reply.text)["sections"]
        return len(set(names)) == len(names) and any(topic.lower() in name.lower() for name in names)

    def explanation(reply: Reply) -> bool:
        texts = [section["content"] for section in json.loads(reply.text)["sections"]]
        about = sum(topic.lower() in text.lower() for text in texts)
        return all(len(text) >= 10 and text[-1] in ".。!！" for text in texts) and about >= len(texts) / 2

    def practice(reply: Reply) -> bool:
        items = json.loads(reply.text)
        ends = all(item[key][-1] in ".。?？!！" for item in items for key in item)
        return ends and len({item["question"] for item in items}) == exercises

    yield Case("lesson: plan", plan_messages(topic, level, language), plan, grammar=plan_grammar(None, portable=False))
    messages = explanation_messages(topic, level, language, sections, include_examples=True)
    yield Case("lesson: explanation", messages, explanation, grammar=explanation_grammar(topic, sections, None, portable=False))
    messages = exercises_messages(topic, level, language, sections, exercises)
    yield Case("lesson: exercises", messages, practice, grammar=exercises_grammar(exercises, None, portable=False))
