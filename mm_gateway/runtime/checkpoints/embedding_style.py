"""How a checkpoint's hidden states become embeddings: by its configuration, else as its sentence-transformers files say, else the mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_gateway.configuration.model_config import ModelConfig, Pooling

_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "lasttoken": "last",
}
# Modules that this gateway computes; Normalize does what it does anyway.
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class EmbeddingStyle:
    """pooling: of the last hidden states. matryoshka: beginnings of the vectors are embeddings too. unfit: why there are none, or None.

    Mean is the default for a model that was not trained for embeddings: what a causal model holds at its last position is
    mostly its guess of the next token (https://arxiv.org/abs/2202.08904).
    """

    pooling: Pooling = "mean"
    matryoshka: bool = False
    unfit: str | None = None


def read_embedding_style(folder: Path, config: ModelConfig) -> EmbeddingStyle:
    """Never fails: what cannot be read or computed makes the model unfit for embeddings, not for text."""
    try:
        checkpoint = _read(folder / "config.json") or {}
        pooling, unfit = _trained_pooling(folder)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return EmbeddingStyle(unfit=f"its sentence-transformers files cannot be read ({type(error).__name__})")
    matryoshka = config.matryoshka or bool(checkpoint.get("is_matryoshka") or checkpoint.get("matryoshka_dimensions"))
    if config.embedding_pooling is not None:
        return EmbeddingStyle(config.embedding_pooling, matryoshka)
    return EmbeddingStyle(pooling or "mean", matryoshka, unfit)


def _trained_pooling(folder: Path) -> tuple[Pooling | None, str | None]:
    """(pooling, None), (None, None) where the files say nothing, or (None, why not)."""
    modules = _read(folder / "modules.json")
    if modules is None:
        return None, None
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    unknown = [kind for kind in kinds if kind not in _MODULES]
    if unknown:
        return None, f"its modules.json asks for {', '.join(unknown)[:100]}, which this server does not compute"
    if "Pooling" not in kinds:
        return None, None
    settings = _read(folder / modules[kinds.index("Pooling")]["path"] / "config.json") or {}
    named = settings.get("pooling_mode")
    asked = [named] if isinstance(named, str) else [key for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    if len(asked) != 1 or asked[0] not in _MODES:
        return None, f"it was trained for a pooling that this server does not compute ({', '.join(map(str, asked))[:100] or 'none'})"
    return _MODES[asked[0]], None


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
