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
