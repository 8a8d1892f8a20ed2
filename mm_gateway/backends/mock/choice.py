"""One choice of the mock's reply: its words one a step, up to a stop string or a limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from mm_gateway.backends.mock.words import words_of
from mm_gateway.core import ChoiceFinished, GenerationConfig, GenerationEvent, TextDelta, TokenLogprob
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
        self._script = script
        self._length = len(script) if script is not None else length
        self._limit = limit
        self._offset = offset
        self._stops = StopStrings(config.stop)
        self.generated = 0
        self.finished = False

    def echo(self, prompt: str) -> Iterator[TextDelta]:
        """The prompt, with log-probabilities where they are asked for."""
        if not self._config.prompt_logprobs:
            yield TextDelta(self.index, prompt)
            return
        words = enumerate(words_of(prompt))
        while piece := list(itertools.islice(words, ECHO_TOKENS)):
            scores = tuple(self._logprob(word, position) for position, word in piece)
            yield TextDelta(self.index, "".join(word for _, word in piece), logprobs=scores)

    def step(self) -> list[GenerationEvent]:
        """The events of one more token."""
        if self.generated >= self._limit:
            return self._end("length", self._stops.flush())
        word = self._next()
        self.generated += 1
        logprobs = (self._logprob(word, self.generated),) if self._config.logprobs is not None else ()
        text, stopped = self._stops.add(word)
        if stopped:
            return self._end("stop", text, logprobs)
        if self.generated >= self._length and (self._script is not None or not self._config.ignore_eos):
            return self._end("stop", text + self._stops.flush(), logprobs)
        if self.generated >= self._limit:
            return self._end("length", text + self._stops.flush(), logprobs)
        return [TextDelta(self.index, text, logprobs=logprobs)] if text or logprobs else []

    def _next(self) -> str:
        if self._script is not None:
            return self._script[self.generated]
        word = _WORDS[(self._offset + self.generated) % len(_WORDS)]
        return word if self.generated == 0 else " " + word

    def _end(self, reason: str, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> list[GenerationEvent]:
        self.finished = True
        end = ChoiceFinished(self.index, "length" if reason == "length" else "stop")
        return [TextDelta(self.index, text, logprobs=logprobs), end] if text or logprobs else [end]

    def _logprob(self, token: str, position: int) -> TokenLogprob:
        if self._config.prompt_logprobs and position == 0:
            return TokenLogprob(token, tuple(token.encode()), None)
        return made_up_logprob(token, self._config.logprobs or 0)


def made_up_logprob(token: str, alternatives: int) -> TokenLogprob:
    """The same for every token, with so many alternatives, itself first."""
    raw = tuple(token.encode())
    top = tuple(
        (token if rank == 0 else f"alt{rank}", raw if rank == 0 else tuple(b"alt%d" % rank), -0.5 - rank) for rank in range(alternatives)
    )
    return TokenLogprob(token, raw, -0.5, top)
