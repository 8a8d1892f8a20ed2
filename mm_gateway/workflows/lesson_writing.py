"""A lesson's text while it is written: Markdown, or the guide's dictionary as JSON. Each part only ever grows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from mm_gateway.stop_strings import StopStrings
from mm_gateway.text import Language

Form = Literal["markdown", "json"]

_WORDS: dict[Language, tuple[str, str, str]] = {"en": ("Plan", "Exercises", "**Answer:** "), "zh": ("计划", "练习", "**答案：**")}


def plan_text(sections: Sequence[str]) -> str:
    """The outline as a numbered list."""
    return "\n".join(f"{number}. {name}" for number, name in enumerate(sections, 1))


def explanation_text(value: Any, sections: Sequence[str]) -> str:
    """The sections as Markdown, as far as they are written."""
    parts = [f"## {name}\n\n{content}" for name, content in zip(sections, _contents(value), strict=False)]
    return "\n\n".join(parts)


def exercises_text(value: Any, count: int, language: Language) -> str:
    """The exercises as a numbered list, as far as they are written."""
    answer = _WORDS[language][2]
    text = ""
    for number, entry in enumerate(_entries(value, "exercises")[:count], 1):
        if "question" in entry:
            text += ("\n\n" if number > 1 else "") + f"{number}. {_indented(entry['question'])}"
        if "answer" in entry:
            text += f"\n\n   {answer}{_indented(entry['answer'])}"
    return text


def exercise_list(value: Any, count: int, *, complete: bool) -> list[dict[str, str]]:
    """The exercises that have been written to the end; complete: nothing more comes."""
    entries = _entries(value, "exercises")
    done = entries if complete else entries[:-1]
    whole = [entry for entry in done if {"question", "answer"} <= entry.keys()][:count]
    return [{"question": str(entry["question"]), "answer": str(entry["answer"])} for entry in whole]


def sections_written(value: Any) -> int:
    """How many sections have been begun."""
    return len(_contents(value))


class LessonText:
    """One choice's text as it goes out, up to a stop string.

    Args:
        stop: strings that end the text.

    Attributes:
        stopped: one of them was found.
    """

    def __init__(self, topic: str, sections: Sequence[str], language: Language, form: Form, stop: Sequence[str]) -> None:
        self._topic = topic
        self._sections = sections
        self._language: Language = language
        self._form: Form = form
        self._stops = StopStrings(stop)
        self._explained = ""
        self._exercises = ""
        self._exercising = False
        self._listed = 0
        self.stopped = False

    def begin(self) -> str:
        """Title and plan."""
        if self._form == "json":
            head = {"topic": self._topic, "plan": plan_text(self._sections)}
            return self._out(json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1] + ',"explanation":"')
        return self._out(f"# {self._topic}\n\n## {_WORDS[self._language][0]}\n\n{plan_text(self._sections)}\n\n")

    def explain(self, value: Any) -> str:
        """What is new in the explanation."""
        text = explanation_text(value, self._sections)
        new, self._explained = text[len(self._explained) :], text
        return self._out(json.dumps(new, ensure_ascii=False)[1:-1] if self._form == "json" else new)

    def begin_exercises(self) -> str:
        """What stands before them."""
        self._exercising = True
        if self._form == "json":
            return self._out('","exercises":[')
        return self._out(f"\n\n## {_WORDS[self._language][1]}\n\n")

    def exercise(self, value: Any, count: int, *, complete: bool = False) -> str:
        """What is new in the exercises; as JSON each when it is complete."""
        if self._form == "json":
            done = exercise_list(value, count, complete=complete)
            pieces = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in done[self._listed :]]
            before = "," if self._listed and pieces else ""
            self._listed = len(done)
            return self._out(before + ",".join(pieces))
        text = exercises_text(value, count, self._language)
        new, self._exercises = text[len(self._exercises) :], text
        return self._out(new)

    def end(self) -> str:
        """What is left."""
        closed = "]}" if self._exercising else '","exercises":[]}'
        last = "\n" if self._form == "markdown" else closed
        return self._out(last) + ("" if self.stopped else self._stops.flush())

    def _out(self, text: str) -> str:
        """The text up to a stop string, without what may be the beginning of one."""
        if self.stopped:
            return ""
        free, self.stopped = self._stops.add(text)
        return free


def _entries(value: Any, key: str) -> list[Mapping[str, Any]]:
    entries = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else value
    if not isinstance(entries, list):
        return []
    return [cast(Mapping[str, Any], entry) if isinstance(entry, Mapping) else {} for entry in cast(list[Any], entries)]


def _contents(value: Any) -> list[str]:
    """Of the sections whose content has begun, in order."""
    contents: list[str] = []
    for entry in _entries(value, "sections"):
        if "content" not in entry:
            break
        contents.append(str(entry["content"]))
    return contents


def _indented(text: object) -> str:
    """As part of a list's entry."""
    return str(text).replace("\n", "\n   ")
