"""The repository's own Markdown as passages with their sentences."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
_FILES = ("README.md", "docs/models.md", "docs/accuracy.md", "docs/benchmarks.md")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`\"*\[0-9])")
LONGEST = 700
"""Characters of a passage."""


class DocSentence(NamedTuple):
    text: str


class DocPassage(NamedTuple):
    """A section, or a part of one."""

    title: str
    text: str
    sentences: list[DocSentence]


@functools.cache
def doc_passages() -> list[DocPassage]:
    """All passages of the documents; the order is that of the files."""
    passages: list[DocPassage] = []
    for name in _FILES:
        path = ROOT / name
        if path.is_file():
            passages += _passages(path.read_text(encoding="utf-8"))
    return passages


def _passages(markdown: str) -> list[DocPassage]:
    found: list[DocPassage] = []
    title, in_code = "", False
    block: list[str] = []

    def close() -> None:
        text = "\n".join(block).strip()
        block.clear()
        while text:
            part = text if len(text) <= LONGEST else text[: text.rfind("\n", 0, LONGEST) if "\n" in text[:LONGEST] else LONGEST]
            text = text[len(part) :].strip()
            if len(part) > 40:
                found.append(DocPassage(title, part, _sentences(part)))

    for line in markdown.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        if not in_code and line.startswith("#"):
            close()
            title = line.lstrip("# ").strip()
        else:
            block.append(line)
    close()
    return found


def _sentences(text: str) -> list[DocSentence]:
    """Those worth citing: prose and items of lists, not code and not rows of tables."""
    prose = re.sub(r"```.*?(```|$)", "\n\n", text, flags=re.DOTALL)
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", prose)
    sentences: list[DocSentence] = []
    for paragraph in paragraphs:
        if paragraph.lstrip().startswith(("|", "<!--")):
            continue
        joined = " ".join(line.strip() for line in paragraph.splitlines()).removeprefix("- ")
        sentences += [DocSentence(part) for part in _SENTENCE.split(joined) if 25 <= len(part) <= 260 and part in text.replace("\n", " ")]
    return sentences
