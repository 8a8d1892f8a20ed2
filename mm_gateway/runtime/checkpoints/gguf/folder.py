"""A GGUF file as the folder that the rest of the gateway reads: config.json, tokenizer files and the weights, made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from mm_gateway.runtime.checkpoints.gguf.config import config_of, generation_config_of
from mm_gateway.runtime.checkpoints.gguf.header import read_header, state_of
from mm_gateway.runtime.checkpoints.gguf.tokenizer import tokenizer_of

WEIGHTS_FILE = "weights.gguf"
# Raised when what is written into the folder changes, so that those made before are not found.
_VERSION = 3


def checkpoint_of_file(file: Path) -> Path:
    """The folder for a GGUF file, in `$XDG_CACHE_HOME/mm_gateway/gguf` (`~/.cache` by default).

    The weights in it are a link to the file, or to the first of its parts, of which `file` is any.

    Raises:
        ValueError: the file is damaged, or holds what is not read from GGUF. OSError: the cache cannot be written.
    """
    # By its own name, not that of what it is a link to, as files in the hub's cache are: the other parts are found by it.
    file = Path(os.path.abspath(file))
    name = hashlib.sha256(f"{_VERSION}:{file}:{state_of(file)}".encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mm_gateway" / "gguf"
    folder = cache / f"{file.stem}-{name}"
    if (folder / "config.json").is_file():
        return folder
    header = read_header(file)
    config = config_of(header)
    cache.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there whole: another process may be at the same.
    made = Path(tempfile.mkdtemp(dir=cache))
    try:
        tokenizer_of(header).save_pretrained(made)
        (made / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        (made / "generation_config.json").write_text(json.dumps(generation_config_of(header)), encoding="utf-8")
        (made / WEIGHTS_FILE).symlink_to(header.file)
        made.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def gguf_file(folder: Path) -> Path | None:
    """The GGUF file that holds the weights of such a folder, the first of its parts; None for any other."""
    file = folder / WEIGHTS_FILE
    return file.readlink() if file.is_symlink() else None
