"""A checkpoint whose config.json means something that transformers cannot read, as a folder that it can."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mm_gateway.runtime.checkpoints.made_folder import made_folder


def mended(folder: Path) -> Path:
    """The folder, or one of links to its files with a config.json of its own.

    Two things are mended: a byte-order mark, which JSON has none of (RFC 8259, 8.1) and editors write; and types of weights as torch
    prints them (`torch.bfloat16`) or as loaders take them (`auto`: what the files are stored in).

    Raises:
        OSError: the cache cannot be written.
    """
    content = (folder / "config.json").read_bytes()
    try:
        given = json.loads(content.decode("utf-8-sig"))
        config = _with_plain_types(given)
    except (ValueError, AttributeError):  # what is wrong with it, the load says
        return folder
    if config == given and not content.startswith(codecs.BOM_UTF8):
        return folder
    files = [file for file in sorted(folder.absolute().iterdir()) if file.name != "config.json"]
    name = hashlib.sha256(b"\0".join([content, *map(os.fsencode, files)])).hexdigest()[:24]

    def write(made: Path) -> None:
        for file in files:
            (made / file.name).symlink_to(file)
        (made / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    return made_folder("mended", f"{folder.name}-{name}", write)


def _with_plain_types(config: dict[str, Any]) -> dict[str, Any]:
    found = {key: _with_plain_types(value) if key == "text_config" else value for key, value in config.items()}
    for key in ("dtype", "torch_dtype"):
        stated = found.get(key)
        if stated == "auto":
            del found[key]
        elif isinstance(stated, str):
            found[key] = stated.removeprefix("torch.")
    return found
