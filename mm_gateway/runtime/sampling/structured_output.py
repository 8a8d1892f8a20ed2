"""Output that has to follow a grammar: compiles grammars for one model's tokenizer, and says at each step which tokens may come next.

The work is llguidance's (https://github.com/guidance-ai/llguidance). Masks are computed on a thread of their own while the
forward pass runs, so they cost a step next to nothing.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError

ERROR_CHARACTERS = 500


class CompiledGrammar:
    """A grammar ready for use; each choice of a request gets a state of its own."""

    def __init__(self, start: llguidance.LLMatcher) -> None:
        self._start = start

    def new_state(self) -> GrammarState:
        return GrammarState(self._start.deep_copy())


class GrammarState:
    """How far one output has come in its grammar."""

    __slots__ = ("matcher",)

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self.matcher = matcher

    def advance(self, token: int) -> bool:
        """A token was sampled. False where the grammar does not allow it, which its mask should have prevented."""
        return self.matcher.consume_token(token)


class GrammarCompiler:
    """Compiles grammars for one tokenizer; thread-safe. The first use takes about a second, for the tokenizer.

    Args:
        vocab_size: of the logits. stop_token_ids: tokens that may end a complete output, at least one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_token_ids = sorted(stop_token_ids)
        self._lock = threading.Lock()
        self._ll_tokenizer: llguidance.LLTokenizer | None = None

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Raises InvalidRequestError: it is none; the message says where. UnsupportedParameterError: this tokenizer cannot."""
        tokenizer = self._prepared(grammar)
        try:
            source = _source(grammar)
        except ValueError as error:
            raise InvalidRequestError(f"{grammar.param}: {str(error)[:ERROR_CHARACTERS]}", param=grammar.param) from None
        matcher = llguidance.LLMatcher(tokenizer, source, log_level=0)
        if matcher.is_error():
            message = matcher.get_error().split("\n<state>")[0][:ERROR_CHARACTERS]
            raise InvalidRequestError(f"{grammar.param} cannot be compiled: {message}", param=grammar.param)
        return CompiledGrammar(matcher)

    def _prepared(self, grammar: Grammar) -> llguidance.LLTokenizer:
        with self._lock:
            if self._ll_tokenizer is None:
                if not isinstance(self._tokenizer, PreTrainedTokenizerFast) or not self._stop_token_ids:
                    raise UnsupportedParameterError(
                        f"{grammar.param} needs a fast tokenizer and an end-of-sequence token, which this model lacks", param=grammar.param
                    )
                self._ll_tokenizer = llguidance.hf.from_tokenizer(self._tokenizer, n_vocab=self._vocab_size, eos_token=self._stop_token_ids)
            return self._ll_tokenizer


class TokenMasks:
    """Computes the masks of a step beside its forward pass."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._executor: Any = None
        self._thread: ThreadPoolExecutor | None = None

    def start(self, states: list[GrammarState]) -> Future[torch.Tensor]:
        """Begin; the result is [len(states), vocabulary] bool on the host, True for tokens that may come next."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
            self._executor = llguidance.LLExecutor()
        return self._thread.submit(self._compute, states)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _compute(self, states: list[GrammarState]) -> torch.Tensor:
        bits = allocate_token_bitmask(len(states), self._vocab_size)
        fill_next_token_bitmask_par(self._executor, [(state.matcher, row) for row, state in enumerate(states)], bits)
        # Little-endian words, so the bits of the bytes are those of the words in order.
        allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self._vocab_size]
        return torch.from_numpy(allowed.view(np.bool_))


def _source(grammar: Grammar) -> str:
    # Free white space lets a weak model go on with blanks for ever.
    compact = {"whitespace_flexible": False}
    match grammar.kind:
        case "json_object":
            return llguidance.LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=compact)  # type: ignore[arg-type]
        case "json_schema":
            return llguidance.LLMatcher.grammar_from_json_schema(grammar.text, overrides=compact)  # type: ignore[arg-type]
        case "regex":
            return llguidance.LLMatcher.grammar_from_regex(grammar.text)
        case "choice":
            texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in json.loads(grammar.text))
            return llguidance.LLMatcher.grammar_from_lark(f"start: {texts}")
        case "lark":
            return llguidance.LLMatcher.grammar_from_lark(grammar.text)
