"""Token ids of long texts, without what transformers puts beside them."""

from __future__ import annotations

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend


class TokenIds:
    """What `tokenizer(text)["input_ids"]` is.

    Calls below transformers' wrapper take a half to a third of its time and memory, and let other threads run, which it does not as it
    makes Python's objects of what nobody reads: masks, types, offsets.

    Args:
        tokenizer: where its class encodes in a way of its own, it does so here too. From now on, nothing else may have it cut or pad.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        ordinary = isinstance(tokenizer, TokenizersBackend) and type(tokenizer)._encode_plus is TokenizersBackend._encode_plus
        self._backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None) if ordinary else None
        if self._backend is not None:
            self._backend.no_truncation()  # which files of embedding models ask for
            self._backend.no_padding()

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """add_special_tokens: put in front what the tokenizer does (BOS)."""
        if self._backend is None or self._backend.encode_special_tokens:
            return self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]  # type: ignore[return-value]
        return self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
