"""What is no safetensors file is said, whatever it is."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_gateway.runtime.checkpoints.stored.tensor_headers import read_headers


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: file.write_bytes(b""), "is no safetensors file"),
        (lambda file: file.write_bytes(b"\xff" * 64), "is no safetensors file"),
        (lambda file: file.write_bytes(struct.pack("<Q", 9) + b'{"a":'), "is cut off or damaged"),
        (os.mkfifo, "is no file"),
        (Path.mkdir, "is no file"),
    ],
    ids=["empty", "rubbish", "cut off", "a pipe", "a folder"],
)
def test_what_is_no_safetensors_file_is_said(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    make(file := tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=says):
        list(read_headers(file))
