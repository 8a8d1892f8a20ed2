"""What a model family brings where transformers alone does not serve its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    Attributes:
        name: for people. architectures: class names that its config.json files state.
        recognises: whether the content of a config.json is of this family.
        register: makes transformers' Auto classes know its configuration and its network; called before each load.
        tokenizer_file: where a checkpoint holds it, `load_tokenizer` reads the tokenizer from the folder, and raises ValueError
            or OSError where it is damaged; elsewhere transformers reads the tokenizer.
        converts_weights: transformers renames or splits its weights while it reads them, so they must not be quantized then.
    """

    name: str
    architectures: tuple[str, ...]
    recognises: Callable[[Mapping[str, Any]], bool]
    register: Callable[[], None]
    tokenizer_file: str
    load_tokenizer: Callable[[Path], PreTrainedTokenizerBase]
    converts_weights: bool = False
