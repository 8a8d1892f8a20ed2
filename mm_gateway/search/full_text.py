"""Ranked full-text search in SQLite's FTS5 over words that `words.py` has found; user text never reaches FTS5's query syntax."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mm_gateway.search.words import query_words, words

TITLE_WEIGHT = 3.0

# unicode61 sees Chinese words because they come separated by blanks; porter joins the forms of English ones.
SCHEMA = "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, text, tokenize = 'porter unicode61 remove_diacritics 2')"


def add(connection: sqlite3.Connection, rowid: int, title: str, text: str) -> None:
    """Make a text findable under `rowid`."""
    connection.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (rowid, " ".join(words(title)), " ".join(words(text))))


def match(connection: sqlite3.Connection, query: str, limit: int) -> list[int]:
    """Rowids, the best first: those that hold all words of the query, then those that hold any, each group by BM25."""
    found: dict[int, None] = {}
    for operator in ("AND", "OR"):
        if len(found) < limit:
            # In a text a long Chinese word may be split otherwise than in the query, so its parts count where not all is found.
            terms = query_words(query, overlapping=operator == "OR")
            found |= dict.fromkeys(_match(connection, f" {operator} ".join(f'"{term}"' for term in terms), limit))
    return list(found)[:limit]


def rank(query: str, texts: Sequence[tuple[str, str]]) -> list[int]:
    """Indices of those (title, text) that have to do with the query, the best first."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(SCHEMA)
        for index, (title, text) in enumerate(texts):
            add(connection, index, title, text)
        return match(connection, query, len(texts)) if texts else []
    finally:
        connection.close()


def _match(connection: sqlite3.Connection, expression: str, limit: int) -> list[int]:
    if not expression:
        return []
    sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, ?, 1.0), rowid LIMIT ?"
    return [rowid for (rowid,) in connection.execute(sql, (expression, TITLE_WEIGHT, limit))]
