"""`mm-gateway search`: models on the hub."""

from __future__ import annotations

import click

from mm_gateway.cli.hub.table import count_in_words, show_table
from mm_gateway.hub.cached_models import cached_models
from mm_gateway.hub.listing import search


def show_found(words: str, limit: int, all_kinds: bool) -> None:
    """Print what the hub finds, a model a line.

    Raises:
        DownloadError: the hub cannot be asked.
    """
    found = search(words, limit=limit, all_kinds=all_kinds)
    if not found:
        click.echo(f"The hub has no model with {words!r} in its name{'' if all_kinds else ' that is tagged as generating text; try --all'}")
        return
    here = {model.name for model in cached_models()}
    rows = [
        (
            model.name,
            count_in_words(model.parameters),
            ", ".join(model.formats) or "-",
            count_in_words(model.downloads),
            ", ".join(filter(None, ["gated" if model.gated else "", "downloaded" if model.name in here else ""])),
        )
        for model in found
    ]
    show_table(("NAME", "PARAMETERS", "FORMATS", "DOWNLOADS", ""), rows)
