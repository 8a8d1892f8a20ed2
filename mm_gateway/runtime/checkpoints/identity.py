"""Says which weights were loaded, so that what was computed with others, or in another precision, is never taken for their work."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from mm_gateway.configuration.model_config import ModelConfig

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".gguf"})


def checkpoint_identity(folder: Path, config: ModelConfig) -> bytes:
    """Of a checkpoint as it is loaded by an entry: names, sizes and times of its weights' files, its configuration, and the precision.

    Not their contents, which would take as long to read as the load; what the weights compute is told apart by what they compute of a
    probe (`engine.model_fingerprint`).
    """
    found = blake2b(f"{config.dtype} {config.quantization}".encode(), digest_size=32)
    found.update((folder / "config.json").read_bytes())
    for file in sorted(folder.iterdir()):
        if file.suffix in _WEIGHTS:
            known = file.stat()  # of what a link leads to, as files of the hub's cache are
            found.update(f"{file.name} {known.st_size} {known.st_mtime_ns}\n".encode())
    return found.digest()
