"""What the workflows say to a model, in English and Chinese; built into messages, and nothing else.

The built-in model is trained on exactly these texts, so a change here is a change of its training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mm_gateway.core import Message
from mm_gateway.text import Language

Difficulty = Literal["beginner", "intermediate", "advanced"]

DIFFICULTY_ZH: dict[Difficulty, str] = {"beginner": "初级", "intermediate": "中级", "advanced": "高级"}


class Passage(NamedTuple):
    """What matters of one source."""

    title: str
    text: str


_ANSWER_SYSTEM: dict[Language, str] = {
    "en": "Answer the question from the numbered sources. After each fact put the number of its source in square brackets, like [1]. "
    "If the sources do not tell, say so.",
    "zh": "根据带编号的来源回答问题，在每个事实后面用方括号注明来源的编号，例如[1]。如果来源没有说明，就直接说明这一点。",
}


def answer_messages(query: str, passages: Sequence[Passage], language: Language) -> list[Message]:
    """The question with its sources, numbered from 1 in their order."""
    sources = "\n\n".join(f"[{number}] {passage.title}\n{passage.text}" for number, passage in enumerate(passages, 1))
    text = f"来源：\n\n{sources}\n\n问题：{query}" if language == "zh" else f"Sources:\n\n{sources}\n\nQuestion: {query}"
    return [Message(role="system", content=_ANSWER_SYSTEM[language]), Message(role="user", content=text)]


_LESSON_SYSTEM: dict[Language, str] = {
    "en": "You write lessons: clear, correct, and fit for the level of the learner.",
    "zh": "你编写课程：清楚、正确，并且适合学习者的水平。",
}


def plan_messages(topic: str, difficulty: Difficulty, language: Language) -> list[Message]:
    """Asks for an outline; the reply is {"sections": [names]}."""
    text = (
        f"为主题“{topic}”规划一节{DIFFICULTY_ZH[difficulty]}课程，列出各节的名称。"
        if language == "zh"
        else f'Plan a lesson for the level {difficulty} on the topic "{topic}". Name its sections.'
    )
    return [Message(role="system", content=_LESSON_SYSTEM[language]), Message(role="user", content=text)]


def explanation_messages(
    topic: str, difficulty: Difficulty, language: Language, sections: Sequence[str], *, include_examples: bool
) -> list[Message]:
    """Asks for the text of all sections; the reply is {"topic": …, "sections": [{"name", "content"}]}."""
    names = "\n".join(f"{number}. {name}" for number, name in enumerate(sections, 1))
    if language == "zh":
        examples = "每节都举一个例子。" if include_examples else "不要举例。"
        text = f"主题：{topic}\n水平：{DIFFICULTY_ZH[difficulty]}\n各节：\n{names}\n\n编写每一节的内容。{examples}"
    else:
        examples = "Give an example in each." if include_examples else "Give no examples."
        text = f"Topic: {topic}\nLevel: {difficulty}\nSections:\n{names}\n\nWrite the content of each section. {examples}"
    return [Message(role="system", content=_LESSON_SYSTEM[language]), Message(role="user", content=text)]


def exercises_messages(topic: str, difficulty: Difficulty, language: Language, sections: Sequence[str], count: int) -> list[Message]:
    """Asks for exercises with answers; the reply is [{"question", "answer"}], `count` of them."""
    names = "\n".join(f"{number}. {name}" for number, name in enumerate(sections, 1))
    if language == "zh":
        text = f"主题：{topic}\n水平：{DIFFICULTY_ZH[difficulty]}\n各节：\n{names}\n\n编写{count}道带答案的练习题。"
    else:
        text = f"Topic: {topic}\nLevel: {difficulty}\nSections:\n{names}\n\nWrite {count} exercises with answers."
    return [Message(role="system", content=_LESSON_SYSTEM[language]), Message(role="user", content=text)]
