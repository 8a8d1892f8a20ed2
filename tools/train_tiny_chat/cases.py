"""The held-out questions of the evaluation, and what a right answer to each is; phrasings, names and topics that training never saw."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm_gateway.core import Grammar, Message, ToolUse
from mm_gateway.workflows.prompts import Language, Passage, answer_messages, exercises_messages, explanation_messages, plan_messages
from tools.train_tiny_chat.corpus import follow_ups, words
from tools.train_tiny_chat.corpus.arithmetic import sum_task
from tools.train_tiny_chat.corpus.asking import SYSTEMS, ask
from tools.train_tiny_chat.corpus.conversation import Conversation
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.facts import Fact
from tools.train_tiny_chat.corpus.fallback import FALLBACK, FALLBACK_ZH
from tools.train_tiny_chat.corpus.fallback import sample as fallback_sample
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.lessons import LEVELS
from tools.train_tiny_chat.corpus.made_up_sources import made_up_task
from tools.train_tiny_chat.corpus.real_sources import ROOM_TOKENS, searched
from tools.train_tiny_chat.corpus.small_talk import SMALL_TALK
from tools.train_tiny_chat.corpus.source_task import NOT_TOLD
from tools.train_tiny_chat.corpus.tools import task as tool_task


@dataclass(frozen=True)
class Reply:
    """calls: (name, arguments) each."""

    text: str
    calls: list[tuple[str, Any]]
    finish_reason: str


@dataclass(frozen=True)
class Case:
    """One question. right: whether a reply answers it."""

    skill: str
    messages: Sequence[Message]
    right: Callable[[Reply], bool]
    tools: ToolUse | None = None
    grammar: Grammar | None = None
    follow: Callable[[Reply], Case | None] | None = field(default=None)
    """The next stage, made from this one's reply."""


def fact_cases(skill: str, facts: Sequence[Fact], draw: Draw) -> list[Case]:
    """Each fact by its held-out question, in both languages, under no system message and under one."""
    cases = []
    for fact in facts:
        for language in ("en", "zh"):
            for system in (None, draw.one(SYSTEMS)):
                messages = [Message(role="user", content=ask(draw, fact, language))]
                if system is not None:
                    messages.insert(0, Message(role="system", content=system))
                cases.append(Case(f"{skill} {language}", messages, _tells(fact, language)))
    return cases


def _tells(fact: Fact, language: Language) -> Callable[[Reply], bool]:
    return lambda reply: fact.told_in(reply.text, language)


def source_cases(draw: Draw, count: int) -> list[Case]:
    """Right: the value that was asked for, each with the number of its source, and no other number."""
    cases = []
    for at in range(count):
        language: Language = "zh" if at % 3 == 2 else "en"
        made = made_up_task(draw, told=True, asked=1, language=language)
        cases.append(Case(f"sources {language}", made.conversation.messages[:-1], _cites(made.answers)))
    for at in range(count // 5):
        language = "zh" if at % 3 == 2 else "en"
        made = made_up_task(draw, told=False, language=language)
        cases.append(
            Case("sources do not tell", made.conversation.messages[:-1], lambda reply, text=NOT_TOLD[language]: reply.text.strip() == text)
        )
    return cases


def _cites(answers: Sequence[tuple[str, int]]) -> Callable[[Reply], bool]:
    wanted = {number for _, number in answers}

    def right(reply: Reply) -> bool:
        cited = {int(number) for number in re.findall(r"\[(\d+)\]", reply.text)}
        return cited == wanted and all(text.lower() in reply.text.lower() for text, _ in answers)

    return right


# fmt: off
_REAL: list[tuple[Language, str, list[Passage], str, int]] = [
    ("en", "How tall is the Eiffel Tower?", [Passage("Eiffel Tower", "The Eiffel Tower is a wrought-iron lattice tower in Paris. It is 330 metres tall and was the tallest structure in the world until 1930."), Passage("Louvre", "The Louvre is a museum in Paris. It opened in 1793 and shows about 35,000 objects.")], "330", 1),
    ("en", "When did the Louvre open?", [Passage("Eiffel Tower", "The Eiffel Tower is a wrought-iron lattice tower in Paris. It is 330 metres tall."), Passage("Louvre", "The Louvre is a museum in Paris. It opened in 1793 and shows about 35,000 objects.")], "1793", 2),
    ("en", "Who wrote Hamlet?", [Passage("Macbeth", "Macbeth is a tragedy set in Scotland."), Passage("Hamlet", "Hamlet was written by William Shakespeare around 1600."), Passage("Faust", "Faust is a play by Goethe.")], "Shakespeare", 2),
    ("en", "What does the flag --dry-run do?", [Passage("Usage", "Run `tidy FOLDER` to sort a folder. The flag --dry-run shows what would be done without doing it."), Passage("Install", "Install it with `pip install tidy`. It needs Python 3.9.")], "shows what would be done", 1),
    ("en", "Which Python does it need?", [Passage("Usage", "Run `tidy FOLDER` to sort a folder. The flag --dry-run shows what would be done without doing it."), Passage("Install", "Install it with `pip install tidy`. It needs Python 3.9.")], "3.9", 2),
    ("en", "How long does a load wait?", [Passage("Memory", "Models are a cache. Requests for a model in memory overtake those that wait for room, for at most ten seconds."), Passage("Docker", "The image runs as a user without privileges."), Passage("Keys", "Keys are off by default.")], "ten seconds", 1),
    ("en", "Where do penguins live?", [Passage("Birds", "Penguins live in the southern hemisphere, most of them in Antarctica. Sparrows live almost everywhere."), Passage("Fish", "Salmon are born in rivers.")], "Antarctica", 1),
    ("en", "What is the boiling point of ethanol?", [Passage("Water", "Water boils at 100 degrees."), Passage("Ethanol", "Ethanol boils at 78 degrees and burns with a blue flame.")], "78", 2),
    ("en", "How many chambers does the heart have?", [Passage("Lungs", "The lungs take oxygen from the air."), Passage("Heart", "The human heart has four chambers and beats about 100,000 times a day.")], "four chambers", 2),
    ("en", "What is the default port of Redis?", [Passage("Redis", "Redis is an in-memory store. Its default port is 6379."), Passage("PostgreSQL", "PostgreSQL listens on port 5432 by default.")], "6379", 1),
    ("zh", "长城有多长？", [Passage("长城", "长城是中国古代的军事工程，全长约2.1万公里。"), Passage("故宫", "故宫位于北京，建于1420年。")], "2.1万", 1),
    ("zh", "故宫建于哪一年？", [Passage("长城", "长城是中国古代的军事工程，全长约2.1万公里。"), Passage("故宫", "故宫位于北京，建于1420年。")], "1420", 2),
    ("zh", "谁写了《红楼梦》？", [Passage("西游记", "《西游记》的作者是吴承恩。"), Passage("红楼梦", "《红楼梦》的作者是曹雪芹，成书于清代。")], "曹雪芹", 2),
    ("zh", "这个工具怎么安装？", [Passage("安装", "用`pip install tidy`安装这个工具，需要Python 3.9。"), Passage("使用", "运行`tidy 文件夹`来整理文件夹。")], "pip install tidy", 1),
    ("en", "Who painted the Mona Lisa?", [Passage("Mona Lisa", "The Mona Lisa is a portrait that Leonardo da Vinci painted on poplar wood."), Passage("The Last Supper", "The Last Supper is a mural in Milan. It is almost nine metres wide.")], "Leonardo da Vinci", 1),
    ("en", "What do bees collect?", [Passage("Ants", "Ants live in colonies and dig tunnels."), Passage("Bees", "Bees collect nectar and pollen from flowers. A hive can hold 50,000 of them.")], "nectar and pollen", 2),
    ("en", "Why is the sea salty?", [Passage("Oceans", "The sea is salty because rivers wash minerals into it. Its mean depth is 3,700 metres."), Passage("Lakes", "Most lakes hold fresh water.")], "rivers wash minerals", 1),
    ("en", "Which metal is liquid at room temperature?", [Passage("Iron", "Iron rusts in damp air."), Passage("Gold", "Gold is soft and does not rust."), Passage("Mercury", "Mercury is a metal that is liquid at room temperature.")], "Mercury", 3),
    ("en", "When does the shop close?", [Passage("Opening hours", "The shop opens at nine and closes at half past six. On Sundays it stays shut."), Passage("Parking", "Cars can be left behind the building.")], "half past six", 1),
    ("en", "How long can I return an item?", [Passage("Shipping", "Parcels leave the warehouse every weekday."), Passage("Returns", "An item can be returned within 30 days for a full refund.")], "30 days", 2),
    ("en", "Who is called in an emergency?", [Passage("House rules", "Bicycles belong in the cellar. In an emergency the caretaker is called at extension 114.")], "caretaker", 1),
    ("zh", "水在多少度结冰？", [Passage("水", "水在0度结冰，在100度沸腾。"), Passage("油", "油比水轻。")], "0度", 1),
    ("zh", "谁发明了造纸术？", [Passage("火药", "火药最早用于烟花。"), Passage("造纸", "东汉的蔡伦改进并推广了造纸术。")], "蔡伦", 2),
    ("zh", "会议几点开始？", [Passage("通知", "会议下午三点开始，地点在二楼。"), Passage("午餐", "食堂十二点开饭。")], "下午三点", 1),
]
# fmt: on


def real_source_cases() -> list[Case]:
    """Written by hand about real things, in sentences that no template of the corpus makes."""
    return [
        Case(
            "sources by hand",
            answer_messages(query, passages, language),
            lambda reply, text=text, number=number: text in reply.text and f"[{number}]" in reply.text,
        )
        for language, query, passages, text, number in _REAL
    ]


def search_cases() -> list[Case]:
    """search-qa over the repository's documents, asked for each fact by its held-out question; right: what has to be in the answer, citing a source that says it.

    Where the search finds no source that says it, a right answer is that they do not tell.
    """
    cases = []
    for fact in GATEWAY_FACTS:
        for language in ("en", "zh"):
            question = Draw(0, "held_out").question(fact.asked(language))
            passages = searched(question, ROOM_TOKENS)
            telling = {number for number, passage in enumerate(passages, 1) if fact.told_in(passage.text, language)}
            name = f"search in the documents {language}" if telling else "search in the documents: not found"
            cases.append(Case(name, answer_messages(question, passages, language), _tells_from(fact, language, telling)))
    return cases


def _tells_from(fact: Fact, language: Language, telling: set[int]) -> Callable[[Reply], bool]:
    def right(reply: Reply) -> bool:
        cited = {int(number) for number in re.findall(r"\[(\d+)\]", reply.text)}
        if not telling:
            return reply.text.strip() in NOT_TOLD.values()
        return bool(cited) and cited <= telling and fact.told_in(reply.text, language)

    return right


_TOPICS: list[tuple[Language, str]] = [
    ("en", "Sourdough starters"), ("en", "the water wheel"), ("en", "Kubernetes networking"), ("en", "haiku"), ("en", "Sailing knots"), ("en", "the French horn"),
    ("en", "Bayes' theorem"), ("en", "origami cranes"), ("en", "Roman aqueducts"), ("en", "HTTP caching"), ("zh", "二次函数"), ("zh", "光的折射"), ("zh", "京剧脸谱"), ("zh", "HTTP缓存"), ("zh", "养猫"),
]  # fmt: skip


def lesson_cases(draw: Draw) -> list[Case]:
    """Plan, explanation and exercises in one chain each; right where all three are complete and about the topic."""
    return [_plan_case(draw.one(LEVELS), language, topic, draw.one([1, 3, 3, 5])) for language, topic in _TOPICS]


def _schema(value: dict[str, Any]) -> Grammar:
    return Grammar("json_schema", json.dumps(value, ensure_ascii=False))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _plan_case(level: Any, language: Language, topic: str, count: int) -> Case:
    grammar = _schema(
        _object({"sections": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 60}, "minItems": 3, "maxItems": 5}})
    )

    def right(reply: Reply) -> bool:
        names = json.loads(reply.text)["sections"]
        return len(set(names)) == len(names) and any(topic.lower() in name.lower() for name in names)

    def follow(reply: Reply) -> Case:
        return _explanation_case(level, language, topic, json.loads(reply.text)["sections"], count)

    return Case("lesson: plan", plan_messages(topic, level, language), right, grammar=grammar, follow=follow)


def _explanation_case(level: Any, language: Language, topic: str, sections: list[str], count: int) -> Case:
    entries = [_object({"name": {"const": name}, "content": {"type": "string", "minLength": 1, "maxLength": 600}}) for name in sections]
    array = {"type": "array", "prefixItems": entries, "items": False, "minItems": len(sections), "maxItems": len(sections)}
    grammar = _schema(_object({"topic": {"const": topic}, "sections": array}))

    def right(reply: Reply) -> bool:
        texts = [section["content"] for section in json.loads(reply.text)["sections"]]
        about = sum(topic.lower() in text.lower() for text in texts)
        return all(10 <= len(text) < 590 and text[-1] in ".。!！" for text in texts) and about >= len(texts) / 2

    def follow(reply: Reply) -> Case:
        return _exercises_case(level, language, topic, sections, count)

    return Case(
        "lesson: explanation",
        explanation_messages(topic, level, language, sections, include_examples=True),
        right,
        grammar=grammar,
        follow=follow,
    )


def _exercises_case(level: Any, language: Language, topic: str, sections: list[str], count: int) -> Case:
    text = {"type": "string", "minLength": 1, "maxLength": 300}
    entry = _object({"question": text, "answer": text})
    grammar = _schema({"type": "array", "items": entry, "minItems": count, "maxItems": count})

    def right(reply: Reply) -> bool:
        items = json.loads(reply.text)
        ends = all(item[key][-1] in ".。?？!！" for item in items for key in item)
        return len(items) == count and ends and len({item["question"] for item in items}) == count

    return Case("lesson: exercises", exercises_messages(topic, level, language, sections, count), right, grammar=grammar)


def tool_cases(draw: Draw, count: int) -> list[Case]:
    """The right tool with the right values; and answers from results."""
    cases = []
    for at in range(count):
        made = tool_task(draw, answered=at % 4 == 3)
        messages = made.conversation.messages
        use = ToolUse(tools=made.conversation.tools)
        if at % 4 == 3:
            expected = messages[-1].content
            cases.append(
                Case("answers from tool results", messages[:-1], lambda reply, text=expected: reply.text.strip() == text, tools=use)
            )
        else:
            cases.append(Case("tool calls", messages[:-1], lambda reply, call=made.call: reply.calls == [call], tools=use))
    return cases


def conversation_cases(draw: Draw, count: int) -> list[Case]:
    """The last answer of conversations that refer back."""
    cases = []
    for at in range(count):
        made = follow_ups.remembered(draw) if at % 3 < 2 else follow_ups.reading(draw)
        assert isinstance(made, Conversation)
        expected = made.messages[-1].content
        cases.append(Case("follow-ups", made.messages[:-1], lambda reply, text=expected: reply.text.strip() == text))
    return cases


def arithmetic_cases(draw: Draw, count: int) -> list[Case]:
    cases = []
    for _ in range(count):
        question, answer = sum_task(draw)
        cases.append(Case("arithmetic", [Message(role="user", content=question)], lambda reply, text=answer: reply.text.strip() == text))
    return cases


def fallback_cases(draw: Draw, count: int) -> list[Case]:
    """What it cannot know: it says so."""
    cases = []
    for _ in range(count):
        made = fallback_sample(draw)
        assert isinstance(made, Conversation)
        cases.append(Case("says that it does not know", made.messages[:-1], lambda reply: reply.text.strip() in (FALLBACK, FALLBACK_ZH)))
    return cases


def copy_cases(draw: Draw, count: int) -> list[Case]:
    cases = []
    for at in range(count):
        text = (
            " ".join(words.made_up(draw) for _ in range(draw.number(1, 4))) if at % 3 else words.made_up_zh(draw) + words.made_up_zh(draw)
        )
        asked = f"Please write the following: {text}" if at % 3 else f"请原样输出：{text}"
        cases.append(Case("repeats a text", [Message(role="user", content=asked)], lambda reply, text=text: reply.text.strip() == text))
    return cases


def all_cases(size: int = 150, seed: int = 99) -> list[Case]:
    """size: of the generated sets; the others have what there is."""
    draw = Draw(seed, "held_out")
    return [
        *fact_cases("gateway facts", GATEWAY_FACTS, draw),
        *fact_cases("general facts", GENERAL_FACTS[:: max(1, 300 // max(1, size))], draw),
        *fact_cases("small talk", SMALL_TALK, draw),
        *source_cases(draw, size),
        *real_source_cases(),
        *search_cases(),
        *lesson_cases(draw),
        *tool_cases(draw, size // 2),
        *conversation_cases(draw, size // 2),
        *arithmetic_cases(draw, size // 2),
        *fallback_cases(draw, size // 4),
        *copy_cases(draw, size // 4),
    ]
