"""The repository's own Markdown as the search workflow gives it to a model: pieces of a few hundred bytes, and the sentences in them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from mm_gateway.search.passages import split_passages

ROOT = Path(__file__).parents[3]
_LEFT_OUT = {"benchmarks.md", "accuracy.md", "questions.en.md", "questions.zh.md"}
"""Mostly tables of numbers; and what is made from the facts."""
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`\"*\[0-9])|(?<=[。！？])")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
PIECE_BYTES = 480
"""As `mm_gateway.search.fitting` cuts them."""


class DocPiece(NamedTuple):
    """title: of the document and the section. sentences: those worth citing."""

    title: str
    text: str
    sentences: list[str]
    chinese: bool


@functools.cache
def doc_pieces() -> list[DocPiece]:
    """All pieces of the documents, in the order of the files."""
    pieces: list[DocPiece] = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if path.name not in _LEFT_OUT:
            pieces += _pieces(path.read_text(encoding="utf-8"))
    return pieces


def _pieces(markdown: str) -> list[DocPiece]:
    found: list[DocPiece] = []
    document, heading, in_code = "", "", False
    block: list[str] = []

    def close() -> None:
        title = f"{document} › {heading}" if heading else document
        for text in split_passages("\n".join(block), PIECE_BYTES):
            if len(text) > 40:
                found.append(DocPiece(title, text, _sentences(text), len(_CHINESE.findall(text)) > len(text) / 5))
        block.clear()

    for line in markdown.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        if not in_code and line.startswith("#"):
            close()
            if line.startswith("# "):
                document, heading = line[2:].strip(), ""
            else:
                heading = line.lstrip("# ").strip()
        else:
            block.append(line)
    close()
    return found


def _sentences(text: str) -> list[str]:
    """Prose and items of lists, not code and not rows of tables."""
    prose = re.sub(r"```.*?(```|$)", "\n\n", text, flags=re.DOTALL)
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", prose):
        if paragraph.lstrip().startswith(("|", "<!--")) or " | " in paragraph or ("=" in paragraph and "`" not in paragraph):
            continue
        joined = " ".join(line.strip() for line in paragraph.splitlines()).removeprefix("- ")
        sentences += [part.strip() for part in _SENTENCE.split(joined) if _whole(part) and part in text.replace("\n", " ")]
    return sentences


def _whole(sentence: str) -> bool:
    """Not the end of one that begins in the piece before, nor the begin of one that ends in the next."""
    return (
        15 <= len(sentence) <= 260 and sentence.rstrip()[-1] not in ",:;" and sentence.count("`") % 2 == 0 and sentence.count('"') % 2 == 0
    )
