"""The numbers of sources in an answer: found whole and in pieces, with their place, and only where there is such a source."""

from __future__ import annotations

import random

import pytest

from mm_gateway.search.citations import CitationReader
from mm_gateway.search.results import SearchResult

SOURCES = [SearchResult(f"Title {number}", f"https://{number}.example/", "") for number in (1, 2, 3)]


def cited(*pieces: str) -> list[tuple[str, str]]:
    """(what is marked, number of its source), in their order."""
    reader = CitationReader(0, SOURCES)
    text = "".join(pieces)
    found = [citation for piece in pieces for citation in reader.read(piece)]
    return [(text[citation.start_index : citation.end_index], citation.url[8]) for citation in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is so [1].", [("[1]", "1")]),
        ("[1][2] and [1]", [("[1]", "1"), ("[2]", "2"), ("[1]", "1")]),
        ("深度学习[2]是🙂一种【3】方法", [("[2]", "2"), ("【3】", "3")]),
        ("Both [1, 3] and [2，1]", [("[1, 3]", "1"), ("[1, 3]", "3"), ("[2，1]", "2"), ("[2，1]", "1")]),
        ("[0] [4] [99] [1000] [-1] [1.5] [a] [] [ 1] [[2]", [("[2]", "2")]),
        ("[2, 7]", [("[2, 7]", "2")]),
        ("list[1] = [1", [("[1]", "1")]),
        ("none", []),
    ],
)
def test_marks_the_bracketed_number(text: str, expected: list[tuple[str, str]]) -> None:
    assert cited(text) == expected
    assert cited(*text) == expected


def test_the_pieces_make_no_difference() -> None:
    draw = random.Random(3)
    for _ in range(300):
        text = "".join(draw.choice(["[1]", "[", "]", "2", "[2, 3]", "word ", "长长的文字", "【1】", "x" * 80]) for _ in range(20))
        cuts = sorted(draw.sample(range(len(text)), 8))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert cited(*pieces) == cited(text)
        assert cited(text) == cited(*text)


def test_a_citation_comes_with_the_piece_that_completes_it() -> None:
    reader = CitationReader(4, SOURCES)
    assert not list(reader.read("Yes ["))
    assert not list(reader.read("2"))
    (citation,) = reader.read("]. And")
    assert (citation.index, citation.start_index, citation.end_index) == (4, 4, 7)
    assert (citation.title, citation.url) == ("Title 2", "https://2.example/")
    assert not list(reader.read(" so on"))
