"""Finds the numbers of sources, like [1] or [2, 3], in a text that arrives in pieces; knows nothing of models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mm_gateway.core import UrlCitation
from mm_gateway.search.results import SearchResult

# Chinese brackets and commas too, as Chinese models like to write them.
_MARKER = re.compile(r"[\[【](?P<numbers>\d{1,3}(?:\s?[,，、]\s?\d{1,3})*)[\]】]")
_MAX_MARKER = 64
_NUMBER = re.compile(r"\d+")


class CitationReader:
    """Of one choice.

    Args:
        index: of the choice. sources: what [1], [2]… stand for.
    """

    def __init__(self, index: int, sources: Sequence[SearchResult]) -> None:
        self._index = index
        self._sources = sources
        self._tail = ""
        self._tail_start = 0

    def read(self, piece: str) -> Iterator[UrlCitation]:
        """The citations that this piece completes; each marks its bracketed number. A number without a source is none."""
        text = self._tail + piece
        end = 0
        for marker in _MARKER.finditer(text):
            end = marker.end()
            for number in dict.fromkeys(map(int, _NUMBER.findall(marker["numbers"]))):
                if 1 <= number <= len(self._sources):
                    source = self._sources[number - 1]
                    start, stop = self._tail_start + marker.start(), self._tail_start + marker.end()
                    yield UrlCitation(self._index, start, stop, source.title, source.url)
        # What follows the last marker may be the beginning of another one.
        cut = max(end, len(text) - _MAX_MARKER)
        self._tail = text[cut:]
        self._tail_start += cut
