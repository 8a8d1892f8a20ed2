"""What of a repository is in the local cache; asks no server."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache


def cached_file(name: str, file: str, *, revision: str | None = None) -> Path | None:
    """A file of a repository; None where it is not there, or the name is none of a repository."""
    try:
        found = try_to_load_from_cache(name, file, revision=revision)
    except ValueError:
        return None
    return Path(found) if isinstance(found, str) else None
