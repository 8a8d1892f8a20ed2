"""Whether one model can guess what another one says: they have to mean the same by the numbers of their tokens."""

from __future__ import annotations

import msgspec
from transformers import PreTrainedTokenizerBase

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import known_folder
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer

ANOTHER_DRAFT = "Choose a smaller model of the same family, or leave speculative_model out"
_MOST_MISSING = 0.01
"""Share of the large model's tokens that the other may lack: special ones that were added to it."""


def draft_config(config: ModelConfig, device: str) -> ModelConfig | None:
    """The draft model of an entry, to be loaded on the same device; None: it has none.

    Raises:
        ModelLoadError: there is only its name, it has a draft itself, or the device is not a CPU.
    """
    draft = config.speculative_model
    if draft is None:
        return None
    if isinstance(draft, str):
        raise ModelLoadError(
            f"{config.model_name}: speculative_model: {draft!r} is a name, which only models.yaml knows. Give the ModelConfig of that model"
        )
    if draft.speculative_model is not None:
        raise ModelLoadError(
            f"{config.model_name}: speculative_model: {draft.model_name} has a speculative_model itself, and guesses are not guessed. "
            "Leave it out there"
        )
    if device != "cpu":
        raise ModelLoadError(
            f"{config.model_name}: speculative_model is for models on a CPU, and this one is on {device}. Leave it out, or set device: cpu"
        )
    return msgspec.structs.replace(draft, device=device, speculative_tokens=None)


def draft_fault(config: ModelConfig) -> str | None:
    """Why the draft model of an entry cannot guess for it, as far as files that are here show; None: nothing speaks against it. Reads two
    tokenizers, and runs no code of a repository."""
    draft = config.speculative_model
    if not isinstance(draft, ModelConfig) or config.trust_remote_code or draft.trust_remote_code:
        return None
    own, other = _tokenizer_here(config), _tokenizer_here(draft)
    return None if own is None or other is None else _fault(own, other, config.model_name, draft.model_name)


def _tokenizer_here(config: ModelConfig) -> PreTrainedTokenizerBase | None:
    """None: its files are not here, or something is wrong with them, which the load says."""
    folder = known_folder(config)
    if folder is None:
        return None
    try:
        if not (folder / "config.json").is_file():  # a GGUF file, or inside a package: nothing is downloaded for it
            folder = checkpoint_folder(config, lambda _: None, weights=False)
        return load_tokenizer(folder, name=config.model_name, trust_remote_code=False)
    except (ModelLoadError, OSError):
        return None


def check_draft_tokens(tokenizer: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase, *, name: str, draft_name: str) -> None:
    """Raises:
    ModelLoadError: tokens of the two models differ; the message names one.
    """
    if (fault := _fault(tokenizer, draft, name, draft_name)) is not None:
        raise ModelLoadError(f"{name}: speculative_model: {fault}. {ANOTHER_DRAFT}")


def _fault(tokenizer: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase, name: str, draft_name: str) -> str | None:
    vocabulary, other = tokenizer.get_vocab(), draft.get_vocab()
    fault = next((token for token, number in vocabulary.items() if other.get(token, number) != number), None)
    missing = sum(token not in other for token in vocabulary)
    if fault is None and missing <= _MOST_MISSING * len(vocabulary):
        return None
    why = f"token {fault!r} is {vocabulary[fault]} there and {other[fault]} here" if fault is not None else f"{missing} tokens are missing"
    return f"{draft_name} has other tokens, so it cannot guess what {name} says ({why})"
