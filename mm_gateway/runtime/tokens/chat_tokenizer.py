"""A tokenizer as the chat templates want it: control tokens by name, and text in which none can hide."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from mm_gateway.runtime.tokens.token_ids import TokenIds


class ChatTokenizer:
    """chat_templates.encoder.TemplateTokenizer over a tokenizer of transformers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids = TokenIds(tokenizer)
        self.control_tokens: Mapping[str, int] = {
            token: index for token, index in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True) if token
        }
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.control_tokens |= {str(token): index for index, token in added.items() if token.special}
        self._plain: Tokenizer | None = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            self._plain = Tokenizer.from_str(backend.to_str())
            self._plain.encode_special_tokens = True
            self._plain.no_truncation()
            self._plain.no_padding()

    def encode(self, text: str) -> list[int]:
        return self._ids(text, add_special_tokens=False)

    def encode_plain(self, text: str) -> list[int]:
        if self._plain is not None:
            # The batch lets other threads run meanwhile, which `encode` does not; the fast one leaves out offsets.
            return self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def in_front(self) -> list[int]:
        text = "a"
        whole, plain = self._tokenizer.encode(text), self._tokenizer.encode(text, add_special_tokens=False)
        return next((whole[:at] for at in range(len(whole)) if whole[at : at + len(plain)] == plain), [])
