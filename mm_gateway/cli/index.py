"""`mm-gateway index`: builds and updates the index that search-qa looks into, and shows what is in it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from mm_gateway.configuration.settings import Settings
from mm_gateway.search.index_update import update
from mm_gateway.search.local_index import LocalIndex
from mm_gateway.search.providers import INDEX_FILE

SHOW_EVERY = 25


def update_index(settings: Settings, paths: Sequence[Path], *, rebuild: bool) -> bool:
    """Index files and folders; without any, those of the settings and those indexed before. False: some could not be read.

    Raises:
        ConfigurationError: a path does not exist, or the index cannot be used.
    """
    file = settings.storage.path(INDEX_FILE)
    index = LocalIndex(file, rebuild=rebuild)
    try:
        roots = list(paths) or [*dict.fromkeys([*map(Path, settings.search.index_paths), *map(Path, index.status().roots)])]
        if not roots:
            raise click.UsageError("Name files or folders to index, or set search.index_paths")
        if rebuild and paths:
            index.forget_roots()
        counts: Counter[str] = Counter()
        for outcome in update(index, roots, max_file_bytes=settings.search.max_file_bytes):
            counts[outcome.change] += 1
            if outcome.error:
                _progress("")
                click.echo(f"{outcome.path}: {outcome.error}", err=True)
            if counts.total() % SHOW_EVERY == 0:
                _progress(f"{counts.total()} files, now {outcome.path.name}"[:78])
        _progress("")
        click.echo(", ".join(f"{counts[change]} {change}" for change in ("added", "updated", "unchanged", "removed", "failed")))
        status = index.status()
        click.echo(f"{status.documents} documents in {status.passages} passages, in {file}")
        return not counts["failed"]
    finally:
        index.close()


def show_index(settings: Settings) -> None:
    """Print what is indexed, and how much it is."""
    file = settings.storage.path(INDEX_FILE)
    if not file.is_file():
        click.echo("Nothing is indexed; search-qa answers from the gateway's own documentation. Build an index: mm-gateway index PATH…")
        return
    index = LocalIndex(file)
    try:
        status = index.status()
    finally:
        index.close()
    for root in status.roots:
        click.echo(root)
    click.echo(f"{status.documents} documents in {status.passages} passages, {file.stat().st_size} bytes in {file}")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{text:78}\r", nl=False, err=True)
