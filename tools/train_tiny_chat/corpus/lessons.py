"""Lessons on any topic: outline, explanation and exercises, in exactly the words and the JSON of the lesson workflow."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mm_gateway.core import Message
from mm_gateway.workflows.prompts import DIFFICULTY_ZH, Difficulty, Language, exercises_messages, explanation_messages, plan_messages
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.conversation import Conversation, Example, chat
from tools.train_tiny_chat.corpus.draw import Draw, T
from tools.train_tiny_chat.corpus.topics import defined, topic

LEVELS: list[Difficulty] = ["beginner", "intermediate", "advanced"]

# fmt: off
_OPENING = {"beginner": ["What is {t}?", "First look at {t}", "Introduction to {t}", "Meet {t}"], "intermediate": ["What {t} is about", "The basics of {t}", "An overview of {t}"], "advanced": ["{t} in depth", "Foundations of {t}", "A closer look at {t}"]}
_MIDDLE = {
    "beginner": ["Important words", "First steps", "A simple example", "Why {t} matters", "{t} in daily life", "The main parts of {t}", "Tools that you need"],
    "intermediate": ["Key ideas of {t}", "How {t} works", "{t} in practice", "Common mistakes", "Useful methods", "Rules and exceptions", "{t} step by step"],
    "advanced": ["Theory of {t}", "Hard cases of {t}", "Limits of {t}", "Methods of experts", "Open questions", "{t} compared", "Measuring {t}"],
}
_CLOSING = ["Summary", "Practice", "What to remember", "Next steps", "Review of {t}"]
_OPENING_ZH = {"beginner": ["什么是{t}", "初识{t}", "{t}入门"], "intermediate": ["{t}概述", "{t}的基础"], "advanced": ["深入{t}", "{t}的理论基础"]}
_MIDDLE_ZH = {
    "beginner": ["重要的词语", "第一步", "简单的例子", "{t}为什么重要", "生活中的{t}", "{t}的主要部分"],
    "intermediate": ["{t}的核心概念", "{t}如何运作", "{t}的实践", "常见错误", "实用方法", "一步一步学{t}"],
    "advanced": ["{t}的难点", "{t}的局限", "专家的方法", "开放问题", "{t}的比较", "衡量{t}"],
}
_CLOSING_ZH = ["总结", "练习", "要点回顾", "下一步"]

_SENTENCES = [
    "This section is about {s} and what it means for {t}.",
    "{S} helps you to understand {t} (better|more deeply|as a whole).",
    "(Begin|Start) with a (small|simple|clear) part of {t} and (look at it closely|ask what it does|write down what you see).",
    "In {t}, every part has a purpose, and the parts work together.",
    "(Read|Go through) it slowly, and say in your own words what you have learned of {t}.",
    "(Good|Careful) work with {t} needs patience, practice and (clear words|a plan|curiosity).",
    "(Ask|Find out) what {t} is used for, who needs it, and what would be missing without it.",
    "A (list|table|drawing) of the most important points of {t} makes them (easy|easier) to remember.",
    "Compare {t} with something that you know already, and note what is (different|the same).",
    "Most mistakes in {t} come from haste, so check each step.",
]
_ADVANCED = ["(Experts|Specialists) in {t} also ask where its rules (end|fail) and why.", "Test each claim about {t} against a case that could (break|disprove) it.", "Measure what you can in {t}, and say how certain the result is."]
_EXAMPLES = ["For example, take one (case|piece|question) of {t} and work through it from beginning to end.", "For example, explain {t} to a friend in three sentences.", "For example, (draw|write down) a part of {t} that you met this week, and name what you see.", "For example, when you meet {t} for the first time, name three things that you notice."]
_SENTENCES_ZH = ["本节讲的是{s}，以及它对{t}的意义。", "{s}能帮助你(更好地|更深入地)理解{t}。", "先从{t}的一个(简单|小)部分开始，(仔细观察|想想它的作用)。", "在{t}中，每个部分都有自己的作用，并且互相配合。", "慢慢读，用自己的话说出你对{t}学到了什么。", "学好{t}需要耐心、练习和(计划|好奇心)。", "想一想{t}有什么用，谁需要它。", "把{t}的要点列成一张(表|图)，更容易记住。", "把{t}和你已经知道的东西比较，找出(不同|相同)之处。", "{t}中的错误大多来自匆忙，所以要检查每一步。"]
_ADVANCED_ZH = ["专家还会问{t}的规则在哪里不再适用。", "用可能推翻它的例子来检验关于{t}的每个说法。"]
_EXAMPLES_ZH = ["例如，选{t}中的一个(问题|部分)，从头到尾做一遍。", "例如，用三句话向朋友解释{t}。", "例如，写下你这周遇到的一个与{t}有关的(事物|情况)。"]

_EXERCISES = [
    ("What is \"{s}\" about?", "It is about a part of {t}: what it means and how it is used."),
    ("(Explain|Describe) in your own words: {s}.", "A good answer names the purpose of {s} in {t} and gives one case."),
    ("Name (two|three) important points of {t}.", "For example its purpose, its main parts, and how they work together."),
    ("Why does {t} matter?", "Because it helps to understand and solve real tasks."),
    ("Give an example of {t} from your own life.", "Any case that shows a part of {t} and says what it does is right."),
    ("Which mistakes are common in {t}?", "Haste, unclear words, and steps that were not checked."),
    ("How would you explain {t} to a child?", "With simple words, one clear example, and a drawing."),
    ("Compare {t} with something that you know well.", "A good answer names one thing that is the same and one that is different."),
    ("What would you do first to learn more about {t}?", "Begin with a small part, practise it, and write down what you see."),
    ("Who needs {t}, and what for?", "People who meet it in their work or daily life, to do their tasks well."),
    ("How do you check that you have understood \"{s}\"?", "Say it in your own words and solve a small task with it."),
    ("True or false: {t} is learned without practice.", "False: it needs practice and patience."),
]
_EXERCISES_ZH = [
    ("“{s}”讲的是什么？", "讲的是{t}的一个部分：它的意义和用法。"),
    ("用自己的话解释：{s}。", "好的回答会说出{s}在{t}中的作用，并举一个例子。"),
    ("说出{t}的(两|三)个要点。", "例如它的用途、主要部分，以及各部分如何配合。"),
    ("{t}为什么重要？", "因为它帮助我们理解并解决实际问题。"),
    ("从你的生活中举一个{t}的例子。", "只要说明{t}的一个部分及其作用，就是对的。"),
    ("{t}中常见的错误有哪些？", "匆忙、表达不清，以及没有检查步骤。"),
    ("你会怎样向孩子解释{t}？", "用简单的话、一个清楚的例子和一张图。"),
    ("把{t}和你熟悉的东西比较。", "好的回答会说出一个相同点和一个不同点。"),
    ("想进一步学习{t}，先做什么？", "从一个小部分开始练习，并写下观察。"),
    ("谁需要{t}？用来做什么？", "在工作或生活中遇到它的人，用它更好地完成任务。"),
    ("判断：不练习也能学会{t}。", "错：需要练习和耐心。"),
]
# fmt: on


def plan(draw: Draw, subject: str, level: Difficulty, language: Language) -> list[str]:
    """Names of three to five sections, those of the middle in the order of their list: whoever writes the next by the last repeats none."""
    zh = language == "zh"
    opening, middle, closing = (_OPENING_ZH, _MIDDLE_ZH, _CLOSING_ZH) if zh else (_OPENING, _MIDDLE, _CLOSING)
    names = [draw.one(opening[level]), *_in_order(draw, middle[level], draw.one([1, 2, 2, 3])), draw.one(closing)]
    return [name.replace("{t}", subject) for name in names]


def _in_order(draw: Draw, options: Sequence[T], count: int) -> list[T]:
    return [options[at] for at in sorted(draw.some(range(len(options)), count))]


def content(
    draw: Draw, subject: str, section: str, level: Difficulty, language: Language, definition: str | None, *, examples: bool
) -> str:
    zh = language == "zh"
    patterns = draw.some(_SENTENCES_ZH if zh else _SENTENCES, draw.one([1, 2, 2]))
    if level == "advanced" and draw.chance(0.5):
        patterns.append(draw.one(_ADVANCED_ZH if zh else _ADVANCED))
    if examples:
        patterns.append(draw.one(_EXAMPLES_ZH if zh else _EXAMPLES))
    section = section.rstrip("?？")
    sentences = [
        draw.expand(pattern).replace("{t}", subject).replace("{s}", f"“{section}”" if zh else f'"{section}"').replace("{S}", f'"{section}"')
        for pattern in patterns
    ]
    if definition is not None:
        sentences.insert(0, definition + ("。" if zh else "."))
    return ("" if zh else " ").join(sentences)


def exercises(draw: Draw, subject: str, sections: list[str], count: int, language: Language) -> list[dict[str, str]]:
    kinds = _EXERCISES_ZH if language == "zh" else _EXERCISES
    items = []
    first = min(count, len(kinds))
    for question, answer in [*_in_order(draw, kinds, first), *_in_order(draw, kinds, count - first)]:
        section = draw.one(sections).rstrip("?？")
        items.append({"question": _fill(draw, question, subject, section), "answer": _fill(draw, answer, subject, section)})
    return items


def _fill(draw: Draw, pattern: str, subject: str, section: str) -> str:
    text = draw.expand(pattern).replace("{t}", subject).replace("{s}", section)
    return text[0].upper() + text[1:]


def compact(value: object) -> str:
    """As constrained decoding writes JSON: no blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def subject_of(draw: Draw, language: Language) -> tuple[str, str | None]:
    """A topic, and its definition where one is known."""
    if draw.split == "train" and draw.chance(0.15):
        return defined(draw, language)
    return topic(draw, language), None


def outside_plan(draw: Draw, subject: str, language: Language) -> list[str]:
    """Names of sections that this model would not choose itself."""
    if language == "zh":
        return [
            draw.one(
                [f"{subject}的{draw.one(words.ZH_NOUNS)}", words.made_up_zh(draw), f"{draw.one(words.ZH_THINGS)}与{subject}", f"第{at}部分"]
            )
            for at in range(1, draw.number(2, 5))
        ]
    return [
        draw.one(
            [
                f"{subject} and {draw.one(words.THINGS)}s",
                words.made_up(draw),
                f"The {draw.one(words.ADJECTIVES)} {draw.one(words.NOUNS)}",
                f"Part {at}",
                f"{draw.one(words.ADJECTIVES).capitalize()} {subject}",
            ]
        )
        for at in range(1, draw.number(2, 5))
    ]


def sample(draw: Draw) -> Example:
    language: Language = "zh" if draw.chance(0.33) else "en"
    level = draw.one(LEVELS)
    subject, definition = subject_of(draw, language)
    sections = plan(draw, subject, level, language) if draw.chance(0.85) else outside_plan(draw, subject, language)
    match draw.one(["plan", "explanation", "explanation", "exercises", "exercises", "free"]):
        case "plan":
            return _reply(plan_messages(subject, level, language), {"sections": plan(draw, subject, level, language)})
        case "explanation":
            examples = draw.chance(0.7)
            texts = [
                {"name": name, "content": content(draw, subject, name, level, language, definition if at == 0 else None, examples=examples)}
                for at, name in enumerate(sections)
            ]
            return _reply(
                explanation_messages(subject, level, language, sections, include_examples=examples), {"topic": subject, "sections": texts}
            )
        case "exercises":
            count = draw.one([1, 2, 3, 3, 3, 4, 5, 6, 8, 10, 12])
            return _reply(
                exercises_messages(subject, level, language, sections, count), exercises(draw, subject, sections, count, language)
            )
        case _:
            return _free(draw, subject, definition, level, language)


def _reply(messages: list[Message], value: object) -> Conversation:
    return Conversation("lessons", (*messages, Message(role="assistant", content=compact(value))))


_FREE = [
    "(Write|Give me|Make|Prepare) a (short |small |)lesson (about|on) {t}.",
    "(Teach|Tell) me (something |)about {t}, as a lesson.",
    "(I want to learn|Help me to learn|How do I learn) {t}(?|.)",
    "(Make|Write) (an outline|a plan) of a lesson (about|on) {t}.",
    "A lesson on {t}, please.",
    "Could you be my teacher for {t}?",
]
_FREE_ZH = [
    "(写|编写|给我)一节关于{t}的课。",
    "(教我|帮我学习){t}。",
    "我想学{t}。",
    "请(准备|写)一节{t}课。",
    "列一个{t}课程的大纲。",
    "你能当我的{t}老师吗？",
]


def _free(draw: Draw, subject: str, definition: str | None, level: Difficulty, language: Language) -> Example:
    zh = language == "zh"
    sections = plan(draw, subject, level, language)[:3]
    lines = [
        f"{at}. {name}{'：' if zh else ': '}{content(draw, subject, name, level, language, definition if at == 1 else None, examples=False)}"
        for at, name in enumerate(sections, 1)
    ]
    question = draw.wording(_FREE_ZH if zh else _FREE).replace("{t}", subject)
    if zh and draw.chance(0.2):
        question += f"水平：{DIFFICULTY_ZH[level]}。"
    return chat("lessons", question, "\n".join(lines))
