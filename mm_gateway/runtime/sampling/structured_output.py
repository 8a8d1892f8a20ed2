"""Output that has to follow a grammar: compiles grammars for one model's tokenizer, and says at each step which tokens may come next.

The work is llguidance's (https://github.com/guidance-ai/llguidance). Masks are computed on a thread of their own while the
forward pass runs, so they cost a step next to nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import llguidance
import numpy as np
import torch
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mm_gateway.core import Grammar
from mm_gateway.errors import EngineError, InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.grammars.sources import LIMITS, error_of, source_of
from mm_gateway.runtime.grammars.trials import TRIALS, content_key
from mm_gateway.runtime.sampling.grammar_tokenizer import grammar_tokenizer
from mm_gateway.work_pools import GRAMMARS

logger = logging.getLogger(__name__)

CACHE_BYTES = 64 << 20
"""Of compiled grammars that a model keeps."""
_GRAMMAR_BYTES, _BYTES_PER_SOURCE_BYTE = 64 << 10, 64
"""What a compiled grammar takes, as measured: a schema of ten fields 70 kB, one of 500 fields 0.5 MB."""


_LONG_SOURCE = 32 << 10
"""Characters from which on a grammar's first mask may take a second: where it begins with a long text, all of that is looked through."""


class CompiledGrammar:
    """A grammar ready for use; each choice of a request gets a state of its own.

    Args:
        param: the field of the request that it came in. size_bytes: of it in memory, about.
    """

    def __init__(self, start: llguidance.LLMatcher, param: str, size_bytes: int) -> None:
        self._start = start
        self.param = param
        self.size_bytes = size_bytes

    def new_state(self) -> GrammarState:
        return GrammarState(self._start.deep_copy(), self.param)

    def named(self, param: str) -> CompiledGrammar:
        """The same grammar, as that of another field."""
        return self if param == self.param else CompiledGrammar(self._start, param, self.size_bytes)


class GrammarState:
    """How far one output has come in its grammar.

    Attributes:
        param: the field of the request that it came in.
        fault: why its last mask could not be computed, where that was not the grammar's doing.
    """

    __slots__ = ("fault", "matcher", "param")

    def __init__(self, matcher: llguidance.LLMatcher, param: str) -> None:
        self.matcher = matcher
        self.fault: BaseException | None = None
        self.param = param

    def allowed(self) -> Allowed:
        """What may come next."""
        return Allowed(self)

    def accepts(self, token: int) -> bool:
        """Whether it may come next."""
        return self.fault is None and self.matcher.validate_tokens([token]) == 1

    def count_accepted(self, tokens: list[int]) -> int:
        """How many of these may come next, one after the other."""
        return 0 if self.fault is not None or self.matcher.is_error() else self.matcher.validate_tokens(tokens)

    def ahead(self, tokens: list[int]) -> list[GrammarState]:
        """As it will be after each of these tokens, all of which it accepts."""
        states: list[GrammarState] = []
        state = self
        for token in tokens:
            state = GrammarState(state.matcher.deep_copy(), self.param)
            state.matcher.consume_token(token)  # an error comes again with the mask
            states.append(state)
        return states

    def advance(self, token: int) -> None:
        """A token was sampled.

        Raises:
            InvalidRequestError: the grammar cannot go on: nothing that it allows can follow, or finding out what can takes too long.
            EngineError: the token was not sampled by its mask, which could not be computed.
        """
        if self.fault is not None:
            logger.error("a grammar's mask could not be computed", exc_info=self.fault)
            raise EngineError(f"{self.param}: which tokens may come next could not be found out: {str(self.fault)[:200]}")
        # A mask that could not be computed allows the end of the text alone, which must not pass for one.
        if not self.matcher.is_error() and self.matcher.consume_token(token):
            return
        reason = error_of(self.matcher) or "nothing that it allows can follow"
        if "forced bytes" in reason:
            reason = "it asks for text that this model's tokenizer can only read as a control token"
        raise InvalidRequestError(f"{self.param}: the output cannot go on in this grammar: {reason}", param=self.param)


class Allowed(NamedTuple):
    """Tokens that may come next in one output: those that a grammar allows, and some besides. state: None: these alone."""

    state: GrammarState | None
    besides: tuple[int, ...] = ()


class GrammarCompiler:
    """Compiles grammars for one tokenizer, and keeps those that were used last; thread-safe. Making one reads the vocabulary, which a load
    has the time for and a request has not.

    Args:
        vocab_size: of the logits. stop_token_ids: tokens that may end a complete output, at least one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
        self._ll_tokenizer = _tokenizer(tokenizer, vocab_size, sorted(stop_token_ids))
        self._cache_lock = threading.Lock()
        self._cache: OrderedDict[bytes, CompiledGrammar] = OrderedDict()
        self._cached_bytes = 0
        self.compiles = 0
        """Grammars compiled since the start, and the seconds that it took."""
        self.compile_s = 0.0

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """A grammar for this model's tokens; blocks, for milliseconds as a rule.

        Raises:
            InvalidRequestError: it is none, or too large or too deep to be one; the message says where.
            UnsupportedParameterError: this tokenizer cannot.
            ModelUnavailableError: too many others are waiting to be compiled.
        """
        if (found := self._cached(grammar)) is not None:
            return found
        if self._ll_tokenizer is None:
            raise UnsupportedParameterError(
                f"{grammar.param} needs a fast tokenizer and an end-of-sequence token, which this model lacks", param=grammar.param
            )
        TRIALS.check(grammar)
        started = time.monotonic()
        source = source_of(grammar)
        matcher = llguidance.LLMatcher(self._ll_tokenizer, source, log_level=0, limits=LIMITS)
        if (error := error_of(matcher)) is not None:
            raise InvalidRequestError(f"{grammar.param} cannot be compiled: {error}", param=grammar.param)
        if len(source) > _LONG_SOURCE:
            matcher = _begun(matcher)
        compiled = CompiledGrammar(matcher, grammar.param, _GRAMMAR_BYTES + _BYTES_PER_SOURCE_BYTE * len(source))
        self._keep(content_key(grammar), compiled)
        with self._cache_lock:
            self.compiles += 1
            self.compile_s += time.monotonic() - started
        return compiled

    async def compiled(self, grammar: Grammar) -> CompiledGrammar:
        """As `compile`, for an event loop; one that was compiled before is there at once."""
        if (found := self._cached(grammar)) is not None:
            return found
        await TRIALS.checked(grammar)
        return await GRAMMARS.run(self.compile, grammar)

    def _cached(self, grammar: Grammar) -> CompiledGrammar | None:
        key = content_key(grammar)
        with self._cache_lock:
            if key not in self._cache:
                return None
            self._cache.move_to_end(key)
            return self._cache[key].named(grammar.param)

    def _keep(self, key: bytes, compiled: CompiledGrammar) -> None:
        with self._cache_lock:
            if key in self._cache:
                return
            self._cache[key] = compiled
            self._cached_bytes += compiled.size_bytes
            while self._cached_bytes > CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].size_bytes


def _begun(matcher: llguidance.LLMatcher) -> llguidance.LLMatcher:
    """With what its first mask needs, so that no step has to compute it, in which others wait; once for all choices."""
    begun = matcher.deep_copy()
    try:
        begun.compute_bitmask()
    except BaseException:  # noqa: BLE001 - a panic of Rust is no Exception; the step in which it comes again says what is wrong
        return matcher
    return matcher if begun.is_error() else begun


def _tokenizer(tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_token_ids: list[int]) -> llguidance.LLTokenizer | None:
    """None where the model cannot follow grammars."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not stop_token_ids:
        return None
    try:
        return grammar_tokenizer(tokenizer, vocab_size, stop_token_ids)
    except Exception as error:  # noqa: BLE001 - a model that cannot follow grammars is better than none
        logger.warning("this model cannot follow grammars: %s", error)
        return None


class TokenMasks:
    """Computes the masks of a step beside its forward pass."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._executor: Any = None
        self._thread: ThreadPoolExecutor | None = None

    def start(self, outputs: list[Allowed]) -> Future[torch.Tensor]:
        """Begin; the result is [len(outputs), vocabulary] bool on the host, True for tokens that may come next.

        The row of a state whose mask cannot be computed means nothing; what is wrong is the state's `fault`.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
            self._executor = llguidance.LLExecutor()
        return self._thread.submit(self._compute, outputs)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _compute(self, outputs: list[Allowed]) -> torch.Tensor:
        states = [(row, output.state) for row, output in enumerate(outputs) if output.state is not None]
        bits = allocate_token_bitmask(len(outputs), self._vocab_size)
        if len(states) < len(outputs):
            bits[:] = 0
        try:
            self._fill(bits, states)
        except BaseException:  # noqa: BLE001 - a panic of Rust is no Exception, and it is not said whose mask it was
            for row, state in states:
                try:
                    self._fill(bits, [(row, state)])
                except BaseException as error:  # noqa: BLE001 - it fails the request of this state, in `advance`
                    state.fault = error
        # Little-endian words, so the bits of the bytes are those of the words in order.
        allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self._vocab_size]
        for row, output in enumerate(outputs):
            allowed[row, list(output.besides)] = 1
        return torch.from_numpy(allowed.view(np.bool_))

    def _fill(self, bits: np.ndarray, states: list[tuple[int, GrammarState]]) -> None:
        if states:
            fill_next_token_bitmask_par(self._executor, [(state.matcher, row) for row, state in states], bits)
