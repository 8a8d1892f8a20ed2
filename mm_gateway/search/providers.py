"""The table of providers. Another one is a module with a class that has `search` and `close`, and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mm_gateway.configuration.search_settings import SearchProviderName, SearchSettings
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.search.ddgs import DdgsProvider
from mm_gateway.search.local import LocalProvider
from mm_gateway.search.results import SearchProvider
from mm_gateway.search.searxng import SearxngProvider

INDEX_FILE = "index.sqlite"
"""In the storage folder."""

PROVIDERS: Mapping[SearchProviderName, Callable[[SearchSettings, StorageSettings], SearchProvider]] = {
    "local": lambda search, storage: LocalProvider(storage.path(INDEX_FILE), search.index_url),
    "ddgs": lambda search, storage: DdgsProvider(search.timeout_s),
    "searxng": lambda search, storage: SearxngProvider(search.searxng_url, search.timeout_s),
}


def build_provider(search: SearchSettings, storage: StorageSettings) -> SearchProvider:
    """The configured provider; nothing is opened or asked yet."""
    return PROVIDERS[search.provider](search, storage)
