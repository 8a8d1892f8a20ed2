"""Reads Markdown, text, HTML and PDF: from bytes to a title and sections of text; knows neither files nor indices."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mm_gateway.errors import PageError
from mm_gateway.search.encodings import decode

MAX_TITLE = 120
MAX_TEXT_CHARACTERS = 16 * 2**20
SHORT_PAGE = 500


class Section(NamedTuple):
    """A part of a document.

    Attributes:
        heading: its headings from the outermost on, without the document's title. anchor: of its address, without `#`; "": none.
    """

    heading: str
    anchor: str
    text: str


class Document(NamedTuple):
    """What was read. title: "" where the document names none."""

    title: str
    sections: list[Section]


def read_markdown(content: bytes, charset: str | None = None) -> Document:
    """Sections by headings; anchors as GitHub makes them."""
    return parse_markdown(decode(content, charset))


def read_text(content: bytes, charset: str | None = None) -> Document:
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PageError("is no text")
    return Document("", [Section("", "", decode(content, charset))])


def read_html(content: bytes, charset: str | None = None) -> Document:
    """The main text without navigation, by headings.

    Raises:
        PageError: there is no text.
    """
    # Slow to import (0.2 s), and only those who read pages need it.
    import trafilatura

    html = decode(content, charset, html=True)
    tree = trafilatura.load_html(html)
    if tree is None:
        raise PageError("is no HTML")
    title = " ".join((tree.findtext(".//title") or "").split())
    extract = functools.partial(trafilatura.extract, output_format="markdown", include_comments=False, fast=True)
    text = extract(tree)
    if not text or len(text) < SHORT_PAGE:
        # Where there is so little, trafilatura takes everything, navigation too, unless it is told to be choosy.
        text = extract(html, favor_precision=True) or text or trafilatura.html2txt(html)
    if not text:
        raise PageError("has no text")
    document = parse_markdown(text)
    # trafilatura drops the ids that an anchor would need.
    return Document(title or document.title, [section._replace(anchor="") for section in document.sections])


def read_pdf(content: bytes, charset: str | None = None) -> Document:
    """A section a page, with the anchors that PDF viewers know.

    Raises:
        PageError: it is broken, locked, or has no text.
    """
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise PageError("is locked with a password")
        texts = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except PageError:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, NotImplementedError, OSError) as error:
        # What a broken file makes of pypdf is not foreseeable.
        raise PageError(f"is no PDF that can be read: {str(error)[:200] or type(error).__name__}") from error
    if not any(text.strip() for text in texts):
        raise PageError("has no text; scanned pages need text recognition first")
    return Document(title.strip(), [Section(f"{number}", f"page={number}", text) for number, text in enumerate(texts, 1)])


Reader = Callable[[bytes, "str | None"], Document]

READERS: Mapping[str, Reader] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".text": read_text,
    ".rst": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".pdf": read_pdf,
}
"""Suffix of a file's name -> what reads it."""

_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})[ \t]+(?P<text>.*)")
_CLOSING = re.compile(r"(?:^|[ \t])#+$")
_FENCE = re.compile(r" {0,3}(?P<fence>```+|~~~+)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\([^)]*\)")


def parse_markdown(text: str) -> Document:
    """Sections by `#` headings outside code; the first heading of level 1 is the title."""
    title = ""
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    slugs: dict[str, int] = {}
    anchor, lines, fence = "", [], ""
    for line in [*_FRONT_MATTER.sub("", text).splitlines(), None]:
        if line is not None and (mark := _FENCE.match(line)):
            fence = "" if fence and mark["fence"].startswith(fence) else fence or mark["fence"]
        heading = None if fence or line is None else _HEADING.match(line)
        if line is not None and heading is None:
            lines.append(line)
            continue
        if body := "\n".join(lines).strip("\n"):
            sections.append(Section(" › ".join(name for _, name in path), anchor, body))
        if heading is None:
            break
        lines = []
        level, name = len(heading["level"]), _name(heading["text"])
        anchor = _slug(name, slugs)
        path = [(depth, outer) for depth, outer in path if depth < level]
        if level == 1 and not title:
            title = name
        else:
            path.append((level, name))
    return Document(title, sections)


def _name(heading: str) -> str:
    plain = _LINK.sub(r"\g<text>", _CLOSING.sub("", heading[:1000].strip())).replace("`", "")
    return " ".join(plain.split())[:MAX_TITLE]


def _slug(heading: str, seen: dict[str, int]) -> str:
    slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    count = seen.get(slug, 0)
    seen[slug] = count + 1
    return f"{slug}-{count}" if count else slug
