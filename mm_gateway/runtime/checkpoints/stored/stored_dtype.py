"""In which type the weights of a checkpoint are, where its configuration says it and where it does not; torch-free."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mm_gateway.runtime.checkpoints.stored.tensor_headers import read_headers, safetensors_files

_NAMES = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_dtype(folder: Path, checkpoint: dict[str, Any]) -> str:
    """As torch names it: what config.json says, else what most numbers of the files are stored in; float32 where neither shows it.

    Args:
        checkpoint: the content of config.json.

    Raises:
        ValueError: files are missing, cut off or damaged.
    """
    if stated := checkpoint.get("dtype") or checkpoint.get("torch_dtype"):
        return str(stated)
    found: Counter[str] = Counter()
    for file in safetensors_files(folder):
        for header in read_headers(file):
            if header.dtype in _NAMES:
                found[_NAMES[header.dtype]] += header.items
    return found.most_common(1)[0][0] if found else "float32"
