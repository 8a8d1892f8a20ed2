"""A GGUF file as the folder that the rest of the gateway reads: config.json, tokenizer files and the weights, made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from mm_gateway.runtime.checkpoints.gguf.config import config_of, generation_config_of
from mm_gateway.runtime.checkpoints.gguf.header import read_header, state_of
from mm_gateway.runtime.checkpoints.gguf.tokenizer import tokenizer_of
from mm_gateway.runtime.checkpoints.made_folder import made_folder

WEIGHTS_FILE = "weights.gguf"
# Raised when what is written into the folder changes, so that those made before are not found.
_VERSION = 3


def checkpoint_of_file(file: Path) -> Path:
    """The folder for a GGUF file.

    The weights in it are a link to the file, or to the first of its parts, of which `file` is any.

    Raises:
        ValueError: the file is damaged, or holds what is not read from GGUF. OSError: the cache cannot be written.
    """
    # By its own name, not that of what it is a link to, as files in the hub's cache are: the other parts are found by it.
    file = Path(os.path.abspath(file))
    name = hashlib.sha256(f"{_VERSION}:{file}:{state_of(file)}".encode()).hexdigest()[:24]

    def write(made: Path) -> None:
        header = read_header(file)
        config = config_of(header)
        tokenizer_of(header).save_pretrained(made)
        (made / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        (made / "generation_config.json").write_text(json.dumps(generation_config_of(header)), encoding="utf-8")
        (made / WEIGHTS_FILE).symlink_to(header.file)

    return made_folder("gguf", f"{file.stem}-{name}", write)


def gguf_file(folder: Path) -> Path | None:
    """The GGUF file that holds the weights of such a folder, the first of its parts; None for any other."""
    file = folder / WEIGHTS_FILE
    return file.readlink() if file.is_symlink() else None
