"""The index of documents: their passages in one SQLite file, searched by words; knows nothing of how files are read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.search import full_text
from mm_gateway.search.documents import MAX_TEXT_CHARACTERS, Document
from mm_gateway.search.passages import split_passages
from mm_gateway.search.results import SearchResult, snippet_of, title_of
from mm_gateway.search.words import query_words
from mm_gateway.storage.sqlite import is_busy

VERSION = 1
PASSAGE_BYTES = 1200
MAX_RESULT_PASSAGES = 6

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS roots (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, root TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, title TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL, heading TEXT NOT NULL, anchor TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_by_document ON passages (document);
{full_text.SCHEMA};
"""


class Known(NamedTuple):
    """A file as it was when it was read."""

    mtime_ns: int
    size: int
    digest: bytes


class IndexStatus(NamedTuple):
    """What an index holds."""

    roots: list[str]
    documents: int
    passages: int


class LocalIndex:
    """Thread-safe; several processes may share a file, of which one writes at a time. Calls block.

    Args:
        path: the database, made with its folder where it is missing; None: in memory.
        rebuild: begin without any document; the roots stay known.
        wait_s: seconds that a call waits for another process that writes.

    Raises:
        ConfigurationError: the file cannot be used, or comes from another version. StorageError: another process holds it.
    """

    def __init__(self, path: Path | None, *, rebuild: bool = False, wait_s: float = 30.0) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=wait_s)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if not rebuild and version not in (0, VERSION):
                raise ConfigurationError(f"{path} was written by another version. Write it anew with: mm-gateway index --rebuild")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            # Emptied within one transaction and not as a new file, because a running gateway has this one open.
            emptied = "".join(f"DROP TABLE IF EXISTS {table};" for table in ("documents", "passages", "words")) if rebuild else ""
            self._connection.executescript(f"BEGIN IMMEDIATE; {emptied} {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
        except (OSError, sqlite3.Error) as error:
            if is_busy(error):
                raise StorageError("Another process holds its lock. Please try again") from error
            raise ConfigurationError(f"storage.folder: {path} cannot be used: {error}") from error

    def known(self, root: Path) -> dict[str, Known]:
        """The documents at or under a path, whatever root they came with: roots may lie within each other."""
        sql = "SELECT path, mtime_ns, size, digest FROM documents WHERE path = ?1 OR substr(path, 1, length(?2)) = ?2"
        with self._lock:
            return {row[0]: Known(*row[1:]) for row in self._connection.execute(sql, (str(root), f"{str(root).rstrip('/')}/"))}

    def touch(self, path: Path, mtime_ns: int, size: int) -> None:
        """A file has a new date, but says the same."""
        with self._lock:
            self._connection.execute("UPDATE documents SET mtime_ns = ?, size = ? WHERE path = ?", (mtime_ns, size, str(path)))

    def remember_root(self, root: Path) -> None:
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO roots VALUES (?)", (str(root),))

    def forget_root(self, root: Path) -> None:
        with self._lock:
            self._connection.execute("DELETE FROM roots WHERE path = ?", (str(root),))

    def forget_roots(self) -> None:
        """Their documents stay until their files are missed by an update of another root, or the index is rebuilt."""
        with self._lock:
            self._connection.execute("DELETE FROM roots")

    def search(self, query: str, max_results: int, url_of: UrlOf) -> list[SearchResult]:
        """The best sections, each once, with those of their passages that have to do with the query."""
        with self._lock:
            rows = self._rows(full_text.match(self._connection, query, max_results * MAX_RESULT_PASSAGES))
        sections: dict[tuple[int, str, str], list[_Row]] = {}
        for row in rows:
            sections.setdefault((row.document, row.heading, row.anchor), []).append(row)
        terms = query_words(query)
        return [_result(found, url_of, terms) for found in list(sections.values())[:max_results]]

    def status(self) -> IndexStatus:
        with self._lock:
            roots = [path for (path,) in self._connection.execute("SELECT path FROM roots ORDER BY path")]
            counts = self._connection.execute("SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)").fetchone()
        return IndexStatus(roots, *counts)

    def is_empty(self) -> bool:
        with self._lock:
            return self._connection.execute("SELECT 1 FROM documents LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._connection.close()

    def add(self, path: Path, root: Path, document: Document, *, mtime_ns: int = 0, size: int = 0, digest: bytes = b"") -> None:
        """Write or replace one document."""
        title = document.title or path.name
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._remove(path)
            identity = self._connection.execute(
                "INSERT INTO documents (path, root, mtime_ns, size, digest, title) VALUES (?, ?, ?, ?, ?, ?)",
                (str(path), str(root), mtime_ns, size, digest, title),
            ).lastrowid
            for section in document.sections:
                for text in split_passages(section.text[:MAX_TEXT_CHARACTERS], PASSAGE_BYTES):
                    rowid = self._connection.execute(
                        "INSERT INTO passages (document, heading, anchor, text) VALUES (?, ?, ?, ?)",
                        (identity, section.heading, section.anchor, text),
                    ).lastrowid
                    assert rowid is not None
                    full_text.add(self._connection, rowid, f"{title} {section.heading}", text)

    def drop(self, path: Path) -> None:
        """Remove a document; nothing where there is none."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._remove(path)

    def _remove(self, path: Path) -> None:
        row = self._connection.execute("SELECT id FROM documents WHERE path = ?", (str(path),)).fetchone()
        if row is not None:
            self._connection.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM passages WHERE document = ?)", row)
            self._connection.execute("DELETE FROM passages WHERE document = ?", row)
            self._connection.execute("DELETE FROM documents WHERE id = ?", row)

    def _rows(self, rowids: Sequence[int]) -> list[_Row]:
        found = {
            row[0]: _Row(*row)
            for row in self._connection.execute(
                "SELECT passages.id, document, heading, anchor, text, path, root, title FROM passages JOIN documents "
                f"ON documents.id = document WHERE passages.id IN ({','.join('?' * len(rowids))})",
                tuple(rowids),
            )
        }
        # Another process may have removed some in between.
        return [found[rowid] for rowid in rowids if rowid in found]


class _Row(NamedTuple):
    id: int
    document: int
    heading: str
    anchor: str
    text: str
    path: str
    root: str
    title: str


class UrlOf:
    """Addresses of indexed files: in their folders, or under `base` by their path within the indexed folder."""

    def __init__(self, base: str | None = None) -> None:
        self._base = base

    def __call__(self, path: Path, root: Path, anchor: str) -> str:
        if self._base is None:
            url = path.as_uri()
        else:
            within = path.name if path == root else path.relative_to(root).as_posix()
            url = f"{self._base.rstrip('/')}/{quote(within)}"
        return f"{url}#{quote(anchor, safe='=')}" if anchor else url


def _result(rows: Sequence[_Row], url_of: UrlOf, terms: Sequence[str]) -> SearchResult:
    best = rows[0]
    title = f"{best.title} › {best.heading}" if best.heading else best.title
    text = "\n\n".join(row.text for row in sorted(rows[:MAX_RESULT_PASSAGES], key=lambda row: row.id))
    return SearchResult(title_of(title), url_of(Path(best.path), Path(best.root), best.anchor), snippet_of(best.text, terms), text)
