"""A model's vocabulary as llguidance needs it: the bytes of each token, and how text is tokenized.

Why not llguidance's own reading of Hugging Face tokenizers: it reads the whole tokenizer a second time, which takes several times as
long, holds the interpreter's lock all the while, and stays in memory beside the first one.
"""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerFast

from mm_gateway.runtime.tokens.token_text import TokenText

_WINDOW = 4 << 10
"""Characters of a text that are tokenized."""


class _Vocabulary:
    """What LLTokenizer asks of a tokenizer (`llguidance.TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, stop_token_ids: Sequence[int]) -> None:
        text = TokenText(tokenizer)
        self._encode = tokenizer.backend_tokenizer.encode_batch_fast
        self.eos_token_id = stop_token_ids[0]
        # Many models have more logits than tokens, some fewer. What stands for no token has no bytes, and no grammar lets it come.
        known = min(len(tokenizer), vocab_size)
        self.tokens = [text.token_bytes(token_id) for token_id in range(known)] + [b""] * (vocab_size - known)
        self.special_token_ids = sorted(token_id for token_id in text.special if token_id < known)

    def __call__(self, text: str) -> list[int]:
        """Called at each step for all that a grammar leaves no choice about, of which a mask takes the first token: how that one is spelled
        is not decided by what comes thousands of characters later. llguidance looks back over four tokens from the end; there are more.
        """
        # The batch lets other threads run meanwhile, which `encode` does not.
        return self._encode([text[:_WINDOW]], add_special_tokens=False)[0].ids


def grammar_tokenizer(tokenizer: PreTrainedTokenizerFast, vocab_size: int, stop_token_ids: Sequence[int]) -> LLTokenizer:
    """Takes 0.4 and 0.5 s for 150,000 tokens, in which no other thread of Python runs: llguidance (1.9) releases the interpreter's lock
    in neither of its two parts, cannot hand a tokenizer from one process to another, and takes a vocabulary only as a whole. Giving it
    an iterator, so that others run while it reads the tokens, changes little: building the tree of them is what takes the time.

    Args:
        vocab_size: of the logits. stop_token_ids: may end a text, at least one.
    """
    # In two calls, since neither gives up the interpreter's lock: other threads come to run between them.
    plain = LLTokenizer(_Vocabulary(tokenizer, vocab_size, stop_token_ids), eos_token=list(stop_token_ids), slices=[])  # type: ignore[arg-type]
    return plain.with_slices(LLTokenizer.general_slices())
