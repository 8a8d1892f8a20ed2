"""`search:` of `gateway.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.ranges import AtLeastOneKiB, AtLeastZero, Positive, UpToTwenty, Url

SearchProviderName = Literal["local", "ddgs", "searxng"]


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`search:` of `gateway.yaml`: where search-qa looks, and what it may fetch."""

    provider: Annotated[
        SearchProviderName,
        Meta(
            description="What is searched. `local`: the index of your files; `ddgs`: the web (extra `search`); `searxng`: a SearXNG server."
        ),
    ] = "local"
    max_results: Annotated[UpToTwenty, Meta(description="Sources of an answer where the request names no number.")] = 5
    max_source_tokens: Annotated[
        Annotated[int, Meta(ge=100)], Meta(description="What is read of one source at most, in tokens of the answering model.")
    ] = 400
    timeout_s: Annotated[Positive, Meta(description="Seconds that a provider gets to answer.")] = 15.0
    searxng_url: Annotated[Url | None, Meta(description="Address of the SearXNG server, which has to allow the format json.")] = None
    index_paths: Annotated[
        tuple[str, ...], Meta(description="Files and folders that `mm-gateway index` takes where it is given none.")
    ] = ()
    index_url: Annotated[
        str | None,
        Meta(description="What the addresses of indexed files begin with in place of their folder; null: file:// and the folder."),
    ] = None
    max_file_bytes: Annotated[AtLeastOneKiB, Meta(description="Files that are larger are not indexed.")] = 32 * 2**20
    max_page_bytes: Annotated[AtLeastOneKiB, Meta(description="Pages that are larger, once decompressed, are left out.")] = 2 * 2**20
    page_timeout_s: Annotated[Positive, Meta(description="Seconds for a page, redirects included.")] = 10.0
    max_redirects: Annotated[AtLeastZero, Meta(description="Redirects that are followed for a page.")] = 5
    parallel_fetches: Annotated[UpToTwenty, Meta(description="Pages fetched at a time for one question.")] = 5
    allow_private_addresses: Annotated[
        bool, Meta(description="Fetch pages from loopback, private and link-local addresses too. Leave it off where users are not trusted.")
    ] = False
