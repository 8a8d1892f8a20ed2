"""One choice of the mock's reply: its words one a step, up to a stop string or a limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from mm_gateway.backends.mock.vectors import word_ids
from mm_gateway.backends.mock.words import words_of
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationConfig, GenerationEvent, TextDelta, TokenLogprob
from mm_gateway.errors import InvalidRequestError
from mm_gateway.stop_strings import StopStrings

ECHO_TOKENS = 64
"""Of a prompt with log-probabilities that one event echoes."""

_TEXT = (
    "the model answers with plain words that mean nothing but come in the same order every time so a client can be tested "
    "against it without waiting for a real one and its text holds a comma, a full stop. and a café"
)
_WORDS = _TEXT.split()


class MockChoice:
    """One choice's words, one a step: those of `script`, which a grammar asks for, or `length` of the mock's own.

    Args:
        index: of the choice in the reply. offset: with which of its words the mock begins. limit: tokens at most.
    """

    def __init__(
        self, index: int, config: GenerationConfig, *, offset: int, length: int, limit: int, script: Sequence[str] | None = None
    ) -> None:
        self.index = index
        self._config = config
        self._script = script if script is None or script else [""]  # even nothing takes a token: the one that ends it
        self._length = len(self._script) if self._script is not None else length
        self._limit = limit
        self._offset = offset
        self._stops = StopStrings(config.stop, shown=frozenset(config.stop) if config.include_stop_str_in_output else frozenset())
        self._words = _allowed_words(config)
        self.generated = 0
        self.finished = False

    def echo(self, prompt: str) -> Iterator[TextDelta]:
        """The prompt, with log-probabilities where they are asked for."""
        if self._config.prompt_logprobs is None:
            yield TextDelta(self.index, prompt)
            return
        words = enumerate(words_of(prompt))
        while piece := list(itertools.islice(words, ECHO_TOKENS)):
            scores = tuple(prompt_logprob(word, position, self._config) for position, word in piece)
            yield TextDelta(self.index, "".join(word for _, word in piece), logprobs=scores)

    def step(self) -> list[GenerationEvent]:
        """The events of one more token."""
        if self.generated >= self._limit:
            return self._end("length", self._stops.flush())
        config, word = self._config, self._next()
        self.generated += 1
        may_end = self.generated > config.min_tokens
        logprobs = (made_up_logprob(word, config.logprobs, config),) if config.logprobs is not None else ()
        ids = word_ids([word]) if config.return_token_ids or config.stop_token_ids else ()
        told = ids if config.return_token_ids else ()
        if may_end and ids and ids[0] in config.stop_token_ids:
            shown = word if config.include_stop_str_in_output else ""
            return self._end("stop", self._stops.flush() + shown, logprobs if told or config.end_logprobs else (), told, ids[0])
        text, stopped = self._stops.add(word, may_end=may_end)
        if stopped:
            return self._end("stop", text, logprobs, told)
        if self.generated >= self._length and (self._script is not None or not config.ignore_eos):
            return self._end("stop", text + self._stops.flush(), logprobs, told)
        if self.generated >= self._limit:
            return self._end("length", text + self._stops.flush(), logprobs, told)
        return [TextDelta(self.index, text, told, logprobs)] if text or told or logprobs else []

    def _next(self) -> str:
        if self._script is not None:
            return self._script[self.generated]
        word = self._words[(self._offset + self.generated) % len(self._words)]
        return word if self.generated == 0 else " " + word

    def _end(
        self,
        reason: FinishReason,
        text: str,
        logprobs: tuple[TokenLogprob, ...] = (),
        ids: tuple[int, ...] = (),
        stop_token: int | None = None,
    ) -> list[GenerationEvent]:
        self.finished = True
        end = ChoiceFinished(self.index, reason, self._stops.found, stop_token)
        return [TextDelta(self.index, text, ids, logprobs), end] if text or ids or logprobs else [end]


def own_words(config: GenerationConfig, count: int) -> list[str]:
    """So many tokens of the mock's own text."""
    words = _allowed_words(config)
    return [" " * bool(place) + words[place % len(words)] for place in range(count)]


def _allowed_words(config: GenerationConfig) -> Sequence[str]:
    words = [word for word in _WORDS if not any(bad.strip() in word for bad in config.bad_words)] if config.bad_words else _WORDS
    if not words:
        raise InvalidRequestError("bad_words: the mock has no word left", param="bad_words")
    return words


def prompt_logprob(token: str, position: int, config: GenerationConfig) -> TokenLogprob:
    """Of a prompt's token; the first has none."""
    entry = made_up_logprob(token, config.prompt_logprobs or 0, config)
    if not position:
        return TokenLogprob(entry.token, entry.bytes, None)
    return msgspec.structs.replace(entry, rank=1, top_ids=word_ids(_alternatives(token, len(entry.top))))


def made_up_logprob(token: str, top: int, config: GenerationConfig) -> TokenLogprob:
    """The same for every token, with so many alternatives, itself first."""
    texts = _alternatives(token, max(top, 1))
    names = [f"token_id:{id}" for id in word_ids(texts)] if config.return_tokens_as_token_ids else texts
    entries = tuple((name, tuple(text.encode()), -0.5 - rank) for rank, (name, text) in enumerate(zip(names, texts, strict=True)))
    return TokenLogprob(*entries[0], entries[:top])


def _alternatives(token: str, count: int) -> list[str]:
    """The most probable tokens in its place: itself, and others."""
    return [token, *(f"alt{rank}" for rank in range(1, count))][:count]
