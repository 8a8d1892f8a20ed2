"""The text of one sequence: turns its sampled tokens into events, and knows when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as AbstractSequence

import msgspec

from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, TokenLogprob
from mm_gateway.runtime.sampling.sampler import TokenScores
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.runtime.tokens.detokenizer import Detokenizer
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.stop_strings import StopStrings

_PROMPT_TAIL = 6


class SequenceText:
    """What a sequence says: the events of one choice of a reply.

    Args:
        index: the choice's number in its request.
        seq: its tokens; `add` is called after a token was appended.
        stop_strings: end the text and are left out of it. stop_token_ids: the same, as tokens.
    """

    def __init__(
        self, index: int, seq: Sequence, text: TokenText, *, stop_strings: AbstractSequence[str], stop_token_ids: frozenset[int]
    ) -> None:
        self.index = index
        self.seq = seq
        self._text = text
        self._detokenizer = Detokenizer(text.decode, seq.tokens[max(0, seq.prompt_len - _PROMPT_TAIL) : seq.prompt_len])
        self._stops = StopStrings(stop_strings)
        self._stop_token_ids = stop_token_ids
        self._decoded = 0  # characters that came out of the detokenizer
        self._sent = 0  # characters that went out in events
        self._pending: deque[tuple[int, int, TokenLogprob | None]] = deque()  # (end of its text, id, scores) of tokens held back

    def add(self, token_id: int, scores: TokenScores | None) -> tuple[list[GenerationEvent], bool]:
        """Events of one more token, and whether the text ended with it."""
        if token_id in self._stop_token_ids:
            return self._end("stop", ""), True
        new = "" if self._text.is_silent(token_id) else self._detokenizer.add(token_id)
        self._decoded += len(new)
        self._pending.append((self._decoded, token_id, self.logprob(token_id, scores) if scores else None))
        free, stopped = self._stops.add(new)
        if stopped:
            cut = self._sent + len(free)
            kept = [entry for entry in self._pending if entry[0] <= cut]
            return [*self._delta(free, kept), ChoiceFinished(self.index, "stop")], True
        if self.seq.output_len >= self.seq.max_tokens:
            return self._end("length", free), True
        if not free and scores is None:
            return [], False  # the token goes with the text that it will become part of
        return self._delta(free, self._released(len(free))), False

    def finish_unsampled(self) -> list[GenerationEvent]:
        """The end of a text of which nothing was to be generated."""
        return [ChoiceFinished(self.index, "length")]

    def score_prompt(self, scores: list[TokenScores | None], text: str) -> TextDelta:
        """The event that carries an echoed prompt with its log-probabilities; None stands for the first token."""
        ids = self.seq.tokens[: self.seq.prompt_len]
        entries: list[TokenLogprob] = []
        position = 0
        for token, score in zip(ids, scores, strict=True):
            entry = self.logprob(token, score)
            if not entry.in_text and text.startswith(entry.token, position):  # a special token that the prompt spells out
                entry = msgspec.structs.replace(entry, in_text=True)
            position += entry.characters
            entries.append(entry)
        return TextDelta(self.index, text, tuple(ids), tuple(entries))

    def logprob(self, token_id: int, scores: TokenScores | None) -> TokenLogprob:
        """A token's scores with its text and bytes; without scores its log-probability is None."""
        token, raw = self._spelled(token_id)
        in_text = not self._text.is_silent(token_id)
        if scores is None:
            return TokenLogprob(token, raw, None, in_text=in_text)
        top = tuple((*self._spelled(other), logprob) for other, logprob in scores.top)
        return TokenLogprob(token, raw, scores.logprob, top, in_text)

    def _spelled(self, token_id: int) -> tuple[str, tuple[int, ...]]:
        raw = self._text.token_bytes(token_id)
        return raw.decode("utf-8", errors="replace"), tuple(raw)

    def _released(self, characters: int) -> list[tuple[int, int, TokenLogprob | None]]:
        limit = self._sent + characters
        released = []
        while self._pending and self._pending[0][0] <= limit:
            released.append(self._pending.popleft())
        return released

    def _delta(self, text: str, entries: list[tuple[int, int, TokenLogprob | None]]) -> list[GenerationEvent]:
        self._sent += len(text)
        logprobs = tuple(logprob for _, _, logprob in entries if logprob is not None)
        if not text and not entries:
            return []
        return [TextDelta(self.index, text, tuple(token for _, token, _ in entries), logprobs)]

    def _end(self, reason: FinishReason, free: str) -> list[GenerationEvent]:
        more, stopped = self._stops.add(self._detokenizer.flush())
        text = free + more if stopped else free + more + self._stops.flush()
        rest, self._pending = list(self._pending), deque()
        return [*self._delta(text, rest), ChoiceFinished(self.index, "stop" if stopped else reason)]
