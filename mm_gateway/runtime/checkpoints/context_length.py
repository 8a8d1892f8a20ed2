"""How many tokens a checkpoint was made for, as its configuration names them; knows nothing of what memory allows. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm_gateway.configuration.model_config import ModelConfig

_KEYS = ("max_position_embeddings", "n_positions", "seq_length")
_ASSUMED = 2048
"""Where a configuration has none of them, as models without positions of their own do."""


def trained_length(value_of: Callable[[str], Any]) -> int:
    """Tokens that a checkpoint was made for. value_of: what its configuration says of a key; None: nothing."""
    # Qwen's first models name more positions than they were trained with (`seq_length`): the smallest number holds.
    named = min((int(value) for key in _KEYS if (value := value_of(key))), default=_ASSUMED)
    rope = value_of("rope_parameters") or value_of("rope_scaling")
    # Of this kind alone the numbers above are those before scaling: https://huggingface.co/docs/transformers/internal/rope_utils
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == "dynamic":  # type: ignore[union-attr]
        return int(named * float(rope.get("factor") or 1))  # type: ignore[arg-type]
    return named


def configured_length(value_of: Callable[[str], Any], config: ModelConfig) -> int:
    """`max_context_length`, clamped to what the checkpoint was made for."""
    trained = trained_length(value_of)
    return min(trained, config.max_context_length or trained)


def read_checkpoint_config(folder: Path) -> dict[str, Any]:
    """config.json; models of text and more keep the text part apart, which counts here."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
    return {**found, **found["text_config"]} if isinstance(found.get("text_config"), dict) else found


def known_length(config: ModelConfig) -> int | None:
    """The context length of a model that was never loaded, where its files are here; None: they are not. Reads one small file."""
    try:
        folder = known_folder(config)
        return None if folder is None else configured_length(read_checkpoint_config(folder).get, config)
    except (OSError, ValueError, TypeError, AttributeError):  # what is wrong with it, the load says
        return None


def known_folder(config: ModelConfig) -> Path | None:
    """Where the files of a model are, without asking anybody for them; None: not here."""
    local = Path(config.path or config.model_name).expanduser()
    if config.path is not None or (config.revision is None and local.is_dir()):
        return local
    from mm_gateway.hub.cache import cached_file  # half a second, which models of a folder need not pay

    found = cached_file(config.model_name, "config.json", revision=config.revision)
    return None if found is None else found.parent
