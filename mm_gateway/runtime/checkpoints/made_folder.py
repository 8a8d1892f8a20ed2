"""Folders that are made once of what a checkpoint is, and kept for later loads, in `$XDG_CACHE_HOME/mm_gateway` (`~/.cache` by default)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_folder(kind: str, name: str, write: Callable[[Path], None]) -> Path:
    """The folder of that kind and name, which `write` fills where there is none yet; it holds a config.json.

    Raises:
        OSError: the cache cannot be written. Else what `write` raises.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mm_gateway" / kind
    folder = cache / name
    if (folder / "config.json").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there whole: another process may be at the same.
    made = Path(tempfile.mkdtemp(dir=cache))
    try:
        write(made)
        made.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
