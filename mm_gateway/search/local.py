"""The provider `local`: the index of the user's files, or, where there is none yet, of the gateway's own documentation."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from mm_gateway.errors import ConfigurationError, SearchError, StorageError
from mm_gateway.search.documents import read_markdown, read_text
from mm_gateway.search.local_index import LocalIndex, UrlOf
from mm_gateway.search.results import Language, SearchResult
from mm_gateway.storage.database import WAIT_S
from mm_gateway.work_pools import DOCUMENTS


class LocalProvider:
    """Works offline; its results bring their text.

    Args:
        path: the index that `mm-gateway index` writes; looked for at each search, so that a gateway need not be restarted for it.
        index_url: what addresses of its documents begin with in place of their folder.
    """

    def __init__(self, path: Path, index_url: str | None = None) -> None:
        self._path = path
        self._url_of = UrlOf(index_url)
        self._lock = threading.Lock()
        self._index: LocalIndex | None = None
        self._documentation: LocalIndex | None = None

    async def search(self, query: str, max_results: int, language: Language) -> list[SearchResult]:
        return await DOCUMENTS.run(self._search, query, max_results)

    async def close(self) -> None:
        await DOCUMENTS.run(self._close)

    def _close(self) -> None:
        with self._lock:
            for index in (self._index, self._documentation):
                if index is not None:
                    index.close()
            self._index = self._documentation = None

    def _search(self, query: str, max_results: int) -> list[SearchResult]:
        try:
            with self._lock:
                index, url_of = self._current()
            return index.search(query, max_results, url_of)
        except ConfigurationError as error:
            raise SearchError(f"The index cannot be searched: {error}", retryable=False) from error
        except StorageError as error:
            raise SearchError(f"The index cannot be searched: {error}", retryable=True) from error
        except sqlite3.Error as error:
            raise SearchError(f"The index cannot be searched: {error}", retryable=True) from error

    def _current(self) -> tuple[LocalIndex, UrlOf]:
        if self._index is None and self._path.is_file():
            self._index = LocalIndex(self._path, wait_s=WAIT_S)
        if self._index is not None and not self._index.is_empty():
            return self._index, self._url_of
        if self._documentation is None:
            self._documentation = documentation_index()
        return self._documentation, UrlOf()


def documentation_index() -> LocalIndex:
    """The gateway's README, docs and commented configuration, indexed in memory; takes some hundredths of a second."""
    package = Path(__file__).parent.parent
    # In the wheel they stand inside the package, in a checkout beside it.
    root = package if (package / "docs").is_dir() else package.parent
    index = LocalIndex(None)
    for path in sorted({*root.glob("README.md"), *root.glob("docs/**/*.md"), *root.glob("config/*.yaml")}):
        read = read_text if path.suffix == ".yaml" else read_markdown
        index.add(path, root, read(path.read_bytes()))
    return index
