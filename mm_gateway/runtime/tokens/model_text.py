"""What a model reads and writes as tokens: its tokenizer and its chat template, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.core import ChatInput, Tokenized
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.tokens.token_text import TokenText

if TYPE_CHECKING:  # seconds, which commands that only list models need not pay
    from transformers import PreTrainedTokenizerBase

MAX_TEXT_BYTES, MAX_TEXT_BYTES_PER_TOKEN = 256 << 10, 8
"""Of what is only to be tokenized, which may be longer than the context: bytes, and for long contexts bytes for each of their tokens.
That cannot be stopped, and has no bound in tokens: a text of digits takes 3 µs and 250 bytes of memory for each, so 256 KiB take 0.8 s and
64 MiB.
"""


class ModelText:
    """The text side of one model. Methods may be called from any thread.

    Args:
        tokenizer, chat: the model's. context_length: tokens that it can hold. vocab_size: its ids are below.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatEncoder, *, context_length: int, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._text = TokenText(tokenizer)
        self._chat = chat
        self._context_length = context_length
        self._vocab_size = vocab_size

    @property
    def chat(self) -> ChatEncoder:
        return self._chat

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def has_own_template(self) -> bool:
        """Whether the checkpoint brings a chat template."""
        return bool(self._tokenizer.chat_template)

    def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool) -> Tokenized:
        """As core.TokenizingBackend's.

        Raises:
            InvalidRequestError: the text is longer than MAX_TEXT_BYTES; besides what core.TokenizingBackend says.
        """
        match input:
            case str():
                check_text_size([input], "prompt", context_length=self._context_length)
                ids = self._text.encode(input, add_special_tokens=add_special_tokens)
            case ChatInput(messages, use, rendering) as conversation:
                check_text_size([message.content for message in messages], "messages", context_length=self._context_length)
                tools = use.tools if use is not None else ()
                ids = self._chat.encode(messages, tools, rendering=rendering, reasoning=conversation.reasoning)
        strings = (token if isinstance(token, str) else "" for token in self._tokenizer.convert_ids_to_tokens(ids))
        return Tokenized(tuple(ids), tuple(strings), self._context_length)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """As core.TokenizingBackend's."""
        if tokens and not (min(tokens) >= 0 and max(tokens) < self._vocab_size):
            raise InvalidRequestError(f"tokens holds ids outside the vocabulary of {self._vocab_size}", param="tokens")
        return self._text.decode(tokens, skip_special_tokens=False)


def check_text_size(texts: Sequence[str], param: str, *, context_length: int) -> None:
    """For texts that are tokenized whole, however much longer than the context they are.

    Raises:
        InvalidRequestError: they are longer than that may take.
    """
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    limit = max(MAX_TEXT_BYTES, MAX_TEXT_BYTES_PER_TOKEN * context_length)
    if size > limit:
        raise InvalidRequestError(f"{param} holds {size} bytes of text; at most {limit} are tokenized for this model", param=param)
