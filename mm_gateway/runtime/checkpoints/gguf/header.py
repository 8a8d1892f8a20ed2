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

from mm_gateway.configuration.hub_names import gguf_parts
from mm_gateway.runtime.checkpoints.stored.tensor_headers import is_lfs_pointer, not_brought

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # version 1 counted in 32 bits and was gone within weeks
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_MAX_NAME_BYTES = 2**16
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """shape: outermost dimension first, as torch counts. file, offset, nbytes: where its blocks are."""

    file: Path
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
    """metadata: by llama.cpp's keys; arrays as lists. file: the first of its parts."""

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
    """The head of a GGUF file, or of all parts that a model was cut into, of which `file` is any; tensors are not touched.

    Raises:
        ValueError: it is none, is cut off or damaged, has blocks of a kind that nobody here can read, or a part is missing.
    """
    header = _read_file(file)
    count = header.metadata.get(_COUNT)
    if isinstance(count, int) and count > 1:
        header = _joined(file, count)
    if not isinstance(header.metadata.get("general.architecture"), str):
        raise ValueError(f"{header.file.name} does not say its architecture")
    return header


def weights_header(file: Path) -> GgufHeader:
    """As `read_header`, without what it says of the tokenizer, which is most of it; read once for as long as the files stay as they are."""
    return _kept_header(file, state_of(file))


def state_of(file: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of the last change of a GGUF file and its parts, as far as they are there."""
    file.stat()
    parts = [file.with_name(name) for name in gguf_parts(file.name)]
    return tuple((state.st_size, state.st_mtime_ns) for part in parts if part.exists() and (state := part.stat()))


@functools.lru_cache(maxsize=16)
def _kept_header(file: Path, state: tuple[tuple[int, int], ...]) -> GgufHeader:
    header = read_header(file)
    return replace(header, metadata={key: value for key, value in header.metadata.items() if not key.startswith("tokenizer.")})


def _joined(file: Path, count: int) -> GgufHeader:
    """Of the parts that lie beside one of them: what the first says, and the tensors of all."""
    names = gguf_parts(file.name)
    if len(names) != count:
        raise ValueError(
            f"{file.name} is one of {count} parts, which are found by their names: name them as they were, such as "
            f"model-00001-of-{count:05d}.gguf"
        )
    missing = [name for name in names if not file.with_name(name).is_file()]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(f"{', '.join(missing[:3])} {verb} missing: all {count} parts have to lie side by side")
    parts = [_read_file(file.with_name(name)) for name in names]
    for number, part in enumerate(parts):
        said = part.metadata.get(_NUMBER), part.metadata.get(_COUNT)
        if said != (number, count):
            raise ValueError(f"{part.file.name} is no part {number + 1} of {count} by what it says itself: is it one of another model?")
    tensors = {tensor.name: tensor for part in parts for tensor in part.tensors.values()}
    if len(tensors) != parts[0].metadata.get(_TENSORS, len(tensors)) or len(tensors) != sum(len(part.tensors) for part in parts):
        raise ValueError(f"{parts[0].file.name} and the other parts are not those of one model")
    return GgufHeader(parts[0].file, parts[0].metadata, tensors)


def _read_file(file: Path) -> GgufHeader:
    with file.open("rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(file, view).header()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
            raise ValueError(f"{file.name} is cut off or damaged") from error


class _Reader:
    """Walks through the head from its first byte to its last."""

    def __init__(self, file: Path, view: mmap.mmap) -> None:
        self._file = file
        self._view = view
        self._at = 0

    def header(self) -> GgufHeader:
        if is_lfs_pointer(self._file):
            raise ValueError(not_brought(self._file))
        if self._view[:4] != _MAGIC:
            raise ValueError(f"{self._file.name} is no GGUF file")
        self._at = 4
        (version,) = self._unpack("I")
        if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            raise ValueError(f"{self._file.name} is written for big-endian machines; take the little-endian file")
        if version not in _VERSIONS:
            raise ValueError(f"{self._file.name} is of GGUF version {version}; versions 2 and 3 are read")
        tensors, entries = self._unpack("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            name = self._name()
            (kind,) = self._unpack("I")
            metadata[name] = self._value(kind)
        found = [self._tensor() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", 32))
        if alignment < 1:
            raise ValueError(f"{self._file.name} is cut off or damaged")
        start = -(-self._at // alignment) * alignment
        placed = [GgufTensor(self._file, name, shape, kind, start + offset, nbytes) for name, shape, kind, offset, nbytes in found]
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
