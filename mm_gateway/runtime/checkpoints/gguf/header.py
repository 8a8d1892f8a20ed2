"""Reads the head of a GGUF file: what it says of its model, and where each tensor lies.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf` reads it too, in seconds where this takes
a fraction of one, because it makes an array of every string.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # version 1 counted in 32 bits and was gone within weeks
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_NAME_BYTES = 2**16
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """shape: outermost dimension first, as torch counts. offset, nbytes: of its blocks in the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    nbytes: int

    @property
    def items(self) -> int:
        """Numbers in it."""
        return _product(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """metadata: by llama.cpp's keys; arrays as lists."""

    file: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """As llama.cpp names it, such as `llama`."""
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """A key of the architecture, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(file: Path) -> GgufHeader:
    """The head of a GGUF file; its tensors are not touched.

    Raises:
        ValueError: it is none, is cut off or damaged, or has blocks of a kind that nobody here can read.
    """
    with file.open("rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(file, view).header()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
            raise ValueError(f"{file.name} is cut off or damaged") from error


def weights_header(file: Path) -> GgufHeader:
    """As `read_header`, without what it says of the tokenizer, which is most of it; read once for as long as the file stays as it is."""
    state = file.stat()
    return _kept_header(file, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _kept_header(file: Path, size: int, changed_ns: int) -> GgufHeader:
    header = read_header(file)
    return replace(header, metadata={key: value for key, value in header.metadata.items() if not key.startswith("tokenizer.")})


class _Reader:
    """Walks through the head from its first byte to its last."""

    def __init__(self, file: Path, view: mmap.mmap) -> None:
        self._file = file
        self._view = view
        self._at = 0

    def header(self) -> GgufHeader:
        if self._view[:4] != _MAGIC:
            raise ValueError(f"{self._file.name} is no GGUF file")
        self._at = 4
        (version,) = self._unpack("I")
        if version not in _VERSIONS:
            raise ValueError(f"{self._file.name} is of GGUF version {version}; versions 2 and 3 are read")
        tensors, entries = self._unpack("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            name = self._name()
            (kind,) = self._unpack("I")
            metadata[name] = self._value(kind)
        if not isinstance(metadata.get("general.architecture"), str):
            raise ValueError(f"{self._file.name} does not say its architecture")
        found = [self._tensor() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", 32))
        if alignment < 1:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        start = -(-self._at // alignment) * alignment
        placed = [GgufTensor(name, shape, kind, start + offset, nbytes) for name, shape, kind, offset, nbytes in found]
        if any(tensor.offset + tensor.nbytes > len(self._view) for tensor in placed):
            raise ValueError(f"{self._file.name} is cut off or damaged")
        return GgufHeader(self._file, metadata, {tensor.name: tensor for tensor in placed})

    def _tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int, int]:
        name = self._name()
        (dimensions,) = self._unpack("I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        shape = tuple(reversed(self._unpack(f"{dimensions}Q")))  # the file counts the innermost first
        number, offset = self._unpack("IQ")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise ValueError(f"{self._file.name}: {name} is stored in blocks of kind {number}, which is not known here") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        items = _product(shape)
        if items % block:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        return name, shape, kind, offset, items // block * block_bytes

    def _value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._unpack(_NUMBERS[kind])[0]
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        inner, count = self._unpack("IQ")
        if count > len(self._view):
            raise ValueError(f"{self._file.name} is cut off or damaged")
        if inner in _NUMBERS:
            return list(self._unpack(f"{count}{_NUMBERS[inner]}"))
        if inner == _STRING:
            return [self._string() for _ in range(count)]
        raise ValueError(f"{self._file.name} is cut off or damaged")

    def _name(self) -> str:
        name = self._string()
        if len(name) > _MAX_NAME_BYTES:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        return name

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        if length > len(self._view) - self._at:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        start, self._at = self._at, self._at + length
        return self._view[start : self._at].decode("utf-8")

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._view, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values


def _product(shape: tuple[int, ...]) -> int:
    items = 1
    for size in shape:
        items *= size
    return items
