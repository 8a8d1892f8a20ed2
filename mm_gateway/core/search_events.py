"""What replies say of searches and sources."""

from __future__ import annotations

from typing import Literal

import msgspec


class UrlCitation(msgspec.Struct, frozen=True, tag="citation"):
    """A part of one choice's text that comes from a source; follows the text that it is about.

    Attributes:
        start_index, end_index: characters of the choice's whole text, end exclusive.
    """

    index: int
    start_index: int
    end_index: int
    title: str
    url: str


class FileCitation(msgspec.Struct, frozen=True, tag="file_citation"):
    """A place in one choice's text that comes from a file of the user's index; `place`: characters of the choice's whole text."""

    index: int
    place: int
    filename: str
    file_id: str


SearchKind = Literal["web", "file"]


class SearchSource(msgspec.Struct, frozen=True):
    """What a search found. text: of it, what matters for the query."""

    title: str
    url: str
    text: str


class SearchCall(msgspec.Struct, frozen=True, tag="search_call"):
    """A search that the gateway runs for the model within its reply: told when it begins, and once more, with the same id, when it ends."""

    id: str
    kind: SearchKind
    query: str
    status: Literal["searching", "completed", "failed"]
    sources: tuple[SearchSource, ...] = ()
