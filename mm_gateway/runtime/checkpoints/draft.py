"""Whether one model can guess what another one says: they have to mean the same by the numbers of their tokens."""

from __future__ import annotations

import msgspec
from transformers import PreTrainedTokenizerBase

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError

_MOST_MISSING = 0.01
"""Share of the large model's tokens that the other may lack: special ones that were added to it."""


def draft_config(config: ModelConfig, device: str) -> ModelConfig | None:
    """The draft model of an entry, to be loaded on the same device; None: it has none.

    Raises:
        ModelLoadError: there is only its name, or the device is not a CPU.
    """
    draft = config.speculative_model
    if draft is None:
        return None
    if isinstance(draft, str):
        raise ModelLoadError(
            f"{config.model_name}: speculative_model: {draft!r} is a name, which only models.yaml knows. Give the ModelConfig of that model"
        )
    if device != "cpu":
        raise ModelLoadError(
            f"{config.model_name}: speculative_model is for models on a CPU, and this one is on {device}. Leave it out, or set device: cpu"
        )
    # A draft's own draft would guess what guesses say.
    return msgspec.structs.replace(draft, device=device, speculative_model=None, speculative_tokens=None)


def check_draft_tokens(tokenizer: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase, *, name: str, draft_name: str) -> None:
    """Raises:
    ModelLoadError: tokens of the two models differ; the message names one.
    """
    vocabulary, other = tokenizer.get_vocab(), draft.get_vocab()
    fault = next((token for token, number in vocabulary.items() if other.get(token, number) != number), None)
    missing = sum(token not in other for token in vocabulary)
    if fault is None and missing <= _MOST_MISSING * len(vocabulary):
        return
    why = f"token {fault!r} is {vocabulary[fault]} there and {other[fault]} here" if fault is not None else f"{missing} tokens are missing"
    raise ModelLoadError(
        f"{name}: speculative_model: {draft_name} has other tokens, so it cannot guess what {name} says ({why}). "
        "Choose a smaller model of the same family"
    )
