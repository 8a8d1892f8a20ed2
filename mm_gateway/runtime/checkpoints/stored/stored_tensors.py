"""The tensors of a folder's safetensors files, as they are stored."""

from __future__ import annotations

from functools import cached_property
from io import BufferedReader
from pathlib import Path

import torch

from mm_gateway.runtime.checkpoints.stored.tensor_headers import TensorHeader, read_headers, read_metadata, safetensors_files

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_exactly(stream: BufferedReader, count: int) -> bytearray:
    """So many bytes from where the file is, read once into their place.

    Raises:
        ValueError: the file ends before.
    """
    found = bytearray(count)
    if stream.readinto(found) != count:
        raise ValueError(f"{Path(stream.name).name} is cut off or damaged")
    return found


class StoredTensors:
    """The files are read, not mapped: pages of a mapped file count as the process's memory.

    Attributes:
        headers: of all tensors by their names.

    Raises:
        ValueError: a file is missing, cut off or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = safetensors_files(folder)
        self.headers: dict[str, TensorHeader] = {}
        self._places: dict[str, Path] = {}
        for file in self._files:
            for header in read_headers(file):
                self.headers[header.name] = header
                self._places[header.name] = file

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the files say beside their tensors."""
        return {key: value for file in self._files for key, value in read_metadata(file).items()}

    def read(self, name: str) -> torch.Tensor:
        """A tensor of its own type, in memory of its own. Raises ValueError where the file is cut off, or the type is not known."""
        file, header = self._places[name], self.headers[name]
        if header.dtype not in TYPES:
            raise ValueError(f"{file.name}: {name} is of type {header.dtype}, which is not read")
        with file.open("rb") as stream:
            stream.seek(header.offset)
            stored = read_exactly(stream, header.nbytes)
        if not stored:
            return torch.empty(header.shape, dtype=TYPES[header.dtype])
        return torch.frombuffer(stored, dtype=TYPES[header.dtype]).reshape(header.shape)

    def are_equal(self, name: str, other: str, *, rows: int | None = None) -> bool:
        """Whether two matrices hold the same numbers. rows: compare so many of the first alone."""
        one, two = self.headers[name], self.headers[other]
        if one.shape != two.shape or one.dtype not in TYPES or two.dtype not in TYPES:
            return False
        count, step = min(one.shape[0], rows or one.shape[0]), 4096
        first, second = (self.rows(each, torch.float32) for each in (name, other))
        return all(torch.equal(first[at : min(at + step, count)], second[at : min(at + step, count)]) for at in range(0, count, step))

    def rows(self, name: str, dtype: torch.dtype) -> StoredRows:
        """The rows of a matrix; those that are asked for are read then."""
        header = self.headers[name]
        return StoredRows(self._places[name], header, dtype)


class StoredRows:
    """A matrix that is read a few rows at a time, for what needs no more of it at once.

    Attributes:
        shape: [rows, columns]; whatever is inside one entry of the first dimension is its row.
    """

    def __init__(self, file: Path, header: TensorHeader, dtype: torch.dtype) -> None:
        self._file, self._header, self._dtype = file, header, dtype
        self.shape = (header.shape[0], header.items // header.shape[0])

    def __getitem__(self, rows: slice) -> torch.Tensor:
        first, last, _ = rows.indices(self.shape[0])
        row_bytes = self._header.nbytes // self.shape[0]
        with self._file.open("rb") as stream:
            stream.seek(self._header.offset + first * row_bytes)
            stored = read_exactly(stream, (last - first) * row_bytes)
        return torch.frombuffer(stored, dtype=TYPES[self._header.dtype]).reshape(last - first, -1).to(self._dtype)
