"""A checkpoint's tokenizer, loaded from its files, its pad token settled."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.families import family_of
from mm_gateway.runtime.checkpoints.stored.tensor_headers import is_lfs_pointer, not_brought


def load_tokenizer(folder: Path, *, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Raises ModelLoadError where the folder has no tokenizer that can be read."""
    try:
        family = family_of(folder)
        if family is not None and (folder / family.tokenizer_file).is_file():
            return family.load_tokenizer(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        pointer = next((file for file in sorted(folder.iterdir()) if is_lfs_pointer(file)), None)
        if pointer is not None:
            raise ModelLoadError(f"{name}: {not_brought(pointer)}") from error
        raise ModelLoadError(f"{name}: its tokenizer cannot be loaded ({_first_line(error)}). Are all tokenizer files there?") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
