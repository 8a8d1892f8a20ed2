"""A checkpoint's tokenizer: loaded, its pad token settled, and as the chat templates want it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families import qwen_v1


def load_tokenizer(folder: Path, *, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Raises ModelLoadError where the folder has no tokenizer that can be read."""
    try:
        if (folder / "qwen.tiktoken").is_file():
            return qwen_v1.load_tokenizer(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise ModelLoadError(f"{name}: its tokenizer cannot be loaded ({_first_line(error)}). Are all tokenizer files there?") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__


class ChatTokenizer:
    """chat_templates.encoder.TemplateTokenizer over a tokenizer of transformers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
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

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def encode_plain(self, text: str) -> list[int]:
        if self._plain is not None:
            return self._plain.encode(text, add_special_tokens=False).ids
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
