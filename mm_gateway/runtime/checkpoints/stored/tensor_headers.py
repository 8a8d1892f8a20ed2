"""What a safetensors file holds, read from its header alone; torch-free, so that asking costs milliseconds.

The format begins with the length of a JSON header that names every tensor with its type and shape
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library allows."""
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a checkpoint: name, type as safetensors writes it, shape; offset and nbytes: of its numbers in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0
    nbytes: int = 0

    @property
    def items(self) -> int:
        return math.prod(self.shape)


def safetensors_files(folder: Path) -> list[Path]:
    """Those that hold a model, as transformers chooses: the one of the usual name, else those that the index names, else all.

    Raises:
        ValueError: the index names files that are not there, or is damaged.
    """
    if (folder / _WHOLE).exists():
        return [folder / _WHOLE]
    if (folder / _INDEX).is_file():
        return _named_by_index(folder)
    found = sorted(folder.glob("*.safetensors"))
    # Mistral publishes its weights a second time, for its own programs.
    return [file for file in found if not file.name.startswith("consolidated")] or found


def _named_by_index(folder: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names if name == Path(name).name]
    except (ValueError, KeyError, TypeError, AttributeError):
        files = names = []
    if not names or len(files) != len(names):
        raise ValueError(f"{_INDEX} is cut off or damaged")
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(files)} weight files are missing ({', '.join(missing[:3])})")
    return files


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what Git leaves in place of one that Git LFS has not brought."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_LFS_POINTER)) == _LFS_POINTER


def not_brought(file: Path) -> str:
    """What is said of such a file."""
    return f"{file.name} is a pointer in place of the file, which Git LFS has not brought: run `git lfs pull` in its folder"


def read_headers(file: Path) -> Iterator[TensorHeader]:
    """The tensors of a safetensors file. Raises ValueError where it is cut off or no such file."""
    entries, start_of_numbers = _header(file)
    for name, entry in entries.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield TensorHeader(name, entry["dtype"], tuple(entry["shape"]), start_of_numbers + start, end - start)


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors. Raises ValueError as `read_headers`."""
    return _header(file)[0].get("__metadata__", {})


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries of the header, and where in the file the numbers begin."""
    if not file.is_file():  # opening a pipe would wait for a writer, for ever
        raise ValueError(f"{file.name} is no file")
    if is_lfs_pointer(file):
        raise ValueError(not_brought(file))
    with file.open("rb") as stream:
        prefix = stream.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < size <= _MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is no safetensors file")
        header = stream.read(size)
    try:
        return json.loads(header), 8 + size
    except ValueError as error:
        raise ValueError(f"{file.name} is cut off or damaged") from error
