"""The index of the user's files: passages of Markdown, text, HTML and PDF in one SQLite file, kept up to date by `mm-gateway index`."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mm_gateway.errors import ConfigurationError, PageError
from mm_gateway.search import full_text
from mm_gateway.search.documents import MAX_TEXT_CHARACTERS, READERS, Document
from mm_gateway.search.passages import split_passages
from mm_gateway.search.results import SearchResult, snippet_of, title_of
from mm_gateway.search.words import query_words

VERSION = 1
PASSAGE_BYTES = 1200
MAX_RESULT_PASSAGES = 6
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})

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


class FileOutcome(NamedTuple):
    """What became of one file. change: added, updated, unchanged, removed or failed; error: of `failed`, why."""

    path: Path
    change: str
    error: str = ""


class IndexStatus(NamedTuple):
    """What an index holds."""

    roots: list[str]
    documents: int
    passages: int


class LocalIndex:
    """Thread-safe; several processes may share a file, of which one writes at a time. Calls block.

    Args:
        path: the database, made with its folder where it is missing; None: in memory.
        max_file_bytes: larger files are refused. rebuild: begin without any document; the roots stay known.

    Raises:
        ConfigurationError: the file cannot be used, or comes from another version.
    """

    def __init__(self, path: Path | None, *, max_file_bytes: int = 32 * 2**20, rebuild: bool = False) -> None:
        self._max_file_bytes = max_file_bytes
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=30)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if rebuild:
                # Not a new file, because a running gateway has this one open.
                self._connection.executescript("".join(f"DROP TABLE IF EXISTS {table};" for table in ("documents", "passages", "words")))
            elif version not in (0, VERSION):
                raise ConfigurationError(f"{path} was written by another version. Write it anew with: mm-gateway index --rebuild")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"storage.folder: {path} cannot be used: {error}") from error

    def update(self, roots: Sequence[Path]) -> Iterator[FileOutcome]:
        """Bring the index up to date with files and folders: new and changed ones are read, missing ones drop out. Lazy; each file is
        written on its own, so what was done stays if the rest is not.

        Raises:
            ConfigurationError: a root is neither in the index nor exists.
        """
        for root in map(_absolute, roots):
            if not root.exists() and not self._holds(root):
                raise ConfigurationError(f"there is no file or folder {root}")
        for root in map(_absolute, roots):
            yield from self._update_root(root)

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

    def _update_root(self, root: Path) -> Iterator[FileOutcome]:
        with self._lock:
            # By path and not by root, because one root may lie within another.
            sql = "SELECT path, mtime_ns, size, digest FROM documents WHERE path = ?1 OR substr(path, 1, length(?2)) = ?2"
            known = {row[0]: row[1:] for row in self._connection.execute(sql, (str(root), f"{str(root).rstrip('/')}/"))}
            self._connection.execute("INSERT OR IGNORE INTO roots VALUES (?)", (str(root),))
        present: set[str] = set()
        for path in _files(root):
            present.add(str(path))
            outcome = self._update_file(path, root, known.get(str(path)))
            if outcome.change == "failed":
                self._drop(path)  # what the file once said is no longer true
            yield outcome
        for path in sorted(known.keys() - present):
            self._drop(Path(path))
            yield FileOutcome(Path(path), "removed")
        if not root.exists():
            with self._lock:
                self._connection.execute("DELETE FROM roots WHERE path = ?", (str(root),))

    def _update_file(self, path: Path, root: Path, known: tuple[int, int, bytes] | None) -> FileOutcome:
        try:
            stat = path.stat()
            if known is not None and known[:2] == (stat.st_mtime_ns, stat.st_size):
                return FileOutcome(path, "unchanged")
            if stat.st_size > self._max_file_bytes:
                raise PageError(f"has {stat.st_size} bytes, more than search.max_file_bytes ({self._max_file_bytes})")
            read = READERS.get(path.suffix.lower())
            if read is None:
                raise PageError(f"is of no kind that can be read: {' '.join(READERS)}")
            content = path.read_bytes()
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if known is not None and known[2] == digest:
                with self._lock:
                    changed = (stat.st_mtime_ns, stat.st_size, str(path))
                    self._connection.execute("UPDATE documents SET mtime_ns = ?, size = ? WHERE path = ?", changed)
                return FileOutcome(path, "unchanged")
            document = read(content, None)
        except (PageError, OSError) as error:
            return FileOutcome(path, "failed", error.strerror or str(error) if isinstance(error, OSError) else str(error))
        self.add(path, root, document, mtime_ns=stat.st_mtime_ns, size=stat.st_size, digest=digest)
        return FileOutcome(path, "added" if known is None else "updated")

    def _holds(self, root: Path) -> bool:
        return str(root) in self.status().roots

    def _drop(self, path: Path) -> None:
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
        return [found[rowid] for rowid in rowids]


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


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _files(root: Path) -> Iterator[Path]:
    """Files that can be read, in a stable order; hidden ones, links and folders of other people's code are passed over."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in READERS and not path.is_symlink():
                yield path
