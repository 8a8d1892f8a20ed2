"""Brings the index up to date with files and folders: what is new or changed is read, what is gone drops out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mm_gateway.errors import ConfigurationError, PageError
from mm_gateway.search.documents import READERS
from mm_gateway.search.local_index import Known, LocalIndex
from mm_gateway.search.reading import read_file_apart

SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})


class FileOutcome(NamedTuple):
    """What became of one file. error: of `failed`, why."""

    path: Path
    change: Literal["added", "updated", "unchanged", "removed", "failed"]
    error: str = ""


def update(index: LocalIndex, roots: Sequence[Path], *, max_file_bytes: int) -> Iterator[FileOutcome]:
    """Lazy; each file is written on its own, so that what was done stays if the rest is not.

    Args:
        roots: files and folders, remembered by the index. max_file_bytes: larger files fail.

    Raises:
        ConfigurationError: a root is neither in the index nor exists.
    """
    absolute = [Path(os.path.abspath(root.expanduser())) for root in roots]
    remembered = index.status().roots
    for root in absolute:
        if not root.exists() and str(root) not in remembered:
            raise ConfigurationError(f"there is no file or folder {root}")
    for root in absolute:
        index.remember_root(root)
        known = index.known(root)
        present: set[str] = set()
        for path in _files(root):
            present.add(str(path))
            yield _update_file(index, path, root, known.get(str(path)), max_file_bytes)
        for path in sorted(known.keys() - present):
            index.drop(Path(path))
            yield FileOutcome(Path(path), "removed")
        if not root.exists():
            index.forget_root(root)


def _update_file(index: LocalIndex, path: Path, root: Path, known: Known | None, max_file_bytes: int) -> FileOutcome:
    try:
        stat = path.stat()
        if known is not None and (known.mtime_ns, known.size) == (stat.st_mtime_ns, stat.st_size):
            return FileOutcome(path, "unchanged")
        if stat.st_size > max_file_bytes:
            raise PageError(f"has {stat.st_size} bytes, more than search.max_file_bytes ({max_file_bytes})")
        read = READERS.get(path.suffix.lower())
        if read is None:
            raise PageError(f"is of no kind that can be read: {' '.join(READERS)}")
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if known is not None and known.digest == digest:
            index.touch(path, stat.st_mtime_ns, stat.st_size)
            return FileOutcome(path, "unchanged")
        document = read_file_apart(read, content)
    except (PageError, OSError) as error:
        index.drop(path)  # what the file once said is no longer true
        return FileOutcome(path, "failed", error.strerror or str(error) if isinstance(error, OSError) else str(error))
    index.add(path, root, document, mtime_ns=stat.st_mtime_ns, size=stat.st_size, digest=digest)
    return FileOutcome(path, "added" if known is None else "updated")


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
