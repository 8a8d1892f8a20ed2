"""The text of one sequence: turns its sampled tokens into events, and knows when it ends."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence

import msgspec

from mm_gateway.chat_templates.reasoning_formats.format import Piece
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, PromptTokens, ReasoningDelta, TextDelta, TokenLogprob
from mm_gateway.runtime.engine.requests.ends import Ends
from mm_gateway.runtime.engine.requests.thinking import Thinking
from mm_gateway.runtime.sampling.token_scores import TokenScores
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.runtime.tokens.detokenizer import Detokenizer
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.stop_strings import TextStops

_PROMPT_TAIL = 6
NOTHING: Mapping[int, str] = {}


class SequenceText:
    """What a sequence says: the events of one choice of a reply.

    Args:
        index: the choice's number in its request.
        seq: its tokens; `add` is called after a token was appended.
        ends: what ends the text. new_stops: makes what finds the strings among it, in one stretch of the answer.
        thinking: tells thoughts from the answer; None: all of it is the answer.
        shown: names of special tokens that are part of the text, whatever `skip_special_tokens` says.
    """

    def __init__(
        self,
        index: int,
        seq: Sequence,
        text: TokenText,
        ends: Ends,
        new_stops: Callable[[], TextStops],
        thinking: Thinking | None = None,
        shown: Mapping[int, str] = NOTHING,
    ) -> None:
        self.index = index
        self.seq = seq
        self.begun = False
        self._text = text
        decode = functools.partial(text.decode, skip_special_tokens=seq.config.skip_special_tokens)
        self._detokenizer = Detokenizer(decode, seq.tokens[max(0, seq.prompt_len - _PROMPT_TAIL) : seq.prompt_len])
        self._ends = ends
        self._new_stops = new_stops
        self._stops = new_stops()
        self.thinking = thinking
        self._answering = False  # some of the answer has come since the last thought
        self._shown = shown
        self._decoded = 0  # characters that came out of the detokenizer
        self._sent = 0  # characters that went out in events
        self._pending: deque[tuple[int, int, TokenLogprob | None]] = deque()  # (end of its text, id, scores) of tokens held back

    def add(self, token_id: int, scores: TokenScores | None) -> tuple[list[GenerationEvent], bool]:
        """Events of one more token, and whether the text ended with it."""
        # What a request has for ends is of its answer.
        if token_id in (self._ends.own if self.seq.in_thought else self._ends.tokens) and not self.seq.is_forced:
            name = self._ends.names.get(token_id, "") if self._ends.shows_token else ""
            new = self._text_of(token_id) if self._ends.shows_token and not name else ""
            self.seq.thought_len += self.seq.in_thought
            unshown = [(token_id, self._scored(token_id, scores))]
            return self._end("stop", new=new, last=name, unshown=unshown, ended_by=token_id), True
        new = self._text_of(token_id)
        self._decoded += len(new)
        self._pending.append((self._decoded, token_id, self._scored(token_id, scores)))
        if self.thinking is not None:
            events, new = self._thoughts(self.thinking.read(new))
            self.follow()
        else:
            events = []
        free, stopped = self._stops.add(new, may_end=self._may_end)
        if stopped:
            cut = self._sent + len(free)
            kept = [entry for entry in self._pending if entry[0] <= cut]
            unshown = [(token, scored) for _, token, scored in self._pending][len(kept) :]
            return [*events, *self._delta(free, kept, unshown), ChoiceFinished(self.index, "stop", self._found())], True
        if self.seq.output_len >= self.seq.max_tokens:
            return [*events, *self._end("length", free=free)], True
        if not free and (scores is None or self.seq.in_thought):
            return events, False  # the token goes with the text that it will become part of
        return [*events, *self._delta(free, self._released(len(free)))], False

    def follow(self) -> None:
        """Tell the sequence where its next token is, between thought and answer."""
        thinking = self.thinking
        if thinking is not None:
            self.seq.thought_len, self.seq.in_thought, self.seq.is_forced = thinking.tokens_spent, thinking.in_thought, thinking.is_forced

    def finish_unsampled(self) -> list[GenerationEvent]:
        """The end of a text of which nothing was to be generated."""
        return [ChoiceFinished(self.index, "length")]

    def begin(self, scores: list[TokenScores | None] | None, echo: str | None) -> list[GenerationEvent]:
        """Events that come before those of the first token: the prompt, where it is to be told.

        Args:
            scores: of the prompt's tokens, where they were asked for; None stands for the first token. echo: the prompt's text.
        """
        self.begun = True
        events: list[GenerationEvent] = []
        config = self.seq.config
        logprobs = self.score_prompt(scores, echo) if scores is not None else ()
        if self.index % config.n == 0 and (config.return_token_ids or (logprobs and echo is None)):
            events.append(PromptTokens(self.index // config.n, tuple(self.seq.tokens[: self.seq.prompt_len]), logprobs))
        if echo is not None:
            events.append(TextDelta(self.index, echo, (), logprobs))
        return events

    def score_prompt(self, scores: list[TokenScores | None], echo: str | None) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of the prompt. echo: its text, where that is part of the reply."""
        ids = self.seq.tokens[: self.seq.prompt_len]
        entries: list[TokenLogprob] = []
        position = 0
        for token, score in zip(ids, scores, strict=True):
            entry = self.logprob(token, score)
            if score is not None:
                entry = msgspec.structs.replace(entry, rank=score.rank, top_ids=tuple(other for other, _ in score.top))
            # A special token that the prompt spells out is in its text.
            if echo is not None and not entry.in_text and echo.startswith(self._text.token_bytes(token).decode(errors="replace"), position):
                entry = msgspec.structs.replace(entry, in_text=True)
            position += entry.characters
            entries.append(entry)
        return tuple(entries)

    def logprob(self, token_id: int, scores: TokenScores | None) -> TokenLogprob:
        """A token's scores with its text and bytes; without scores its log-probability is None."""
        token, raw = self._spelled(token_id)
        in_text = not self._is_silent(token_id)
        if scores is None:
            return TokenLogprob(token, raw, None, in_text=in_text)
        top = tuple((*self._spelled(other), logprob) for other, logprob in scores.top)
        return TokenLogprob(token, raw, scores.logprob, top, in_text)

    @property
    def _may_end(self) -> bool:
        """Whether there are more tokens than those before which nothing ends the text."""
        return self.seq.answer_len > self.seq.config.min_tokens

    def _thoughts(self, pieces: AbstractSequence[Piece]) -> tuple[list[GenerationEvent], str]:
        """Events of what is no answer, and the text that is. A thought after some of the answer ends a stretch of that."""
        events: list[GenerationEvent] = []
        answer = ""
        for piece in pieces:
            if piece.part == "answer":
                answer += piece.text
                self._answering = True
                continue
            if self._answering:
                free, _ = self._stops.end(answer, may_end=False)
                events += self._delta(free, self._released(len(free)))
                self._stops, self._answering, answer = self._new_stops(), False, ""
            entries = self._released(len(piece.text))
            self._sent += len(piece.text)
            events += self._reasoning(piece.text if piece.part == "thought" else "", entries)
        return events, answer

    def _reasoning(self, text: str, entries: list[tuple[int, int, TokenLogprob | None]]) -> list[GenerationEvent]:
        ids = tuple(token for _, token, _ in entries)
        if not text and not (ids and self.seq.config.return_token_ids):
            return []
        return [ReasoningDelta(self.index, text, ids, tuple(logprob for _, _, logprob in entries if logprob is not None))]

    def _scored(self, token_id: int, scores: TokenScores | None) -> TokenLogprob | None:
        return None if scores is None else self.logprob(token_id, scores)

    def _is_silent(self, token_id: int) -> bool:
        return self._text.is_silent(token_id, skip_special_tokens=self.seq.config.skip_special_tokens)

    def _text_of(self, token_id: int) -> str:
        """What becomes certain with a token."""
        if not self._is_silent(token_id):
            return self._detokenizer.add(token_id)
        name = self._shown.get(token_id, "")
        if not name and self.thinking is not None:
            name = self.thinking.mark(token_id)
        return self._detokenizer.flush() + name if name else ""

    def _spelled(self, token_id: int) -> tuple[str, tuple[int, ...]]:
        raw = self._text.token_bytes(token_id)
        named = self.seq.config.return_tokens_as_token_ids
        return f"token_id:{token_id}" if named else raw.decode("utf-8", errors="replace"), tuple(raw)

    def _released(self, characters: int) -> list[tuple[int, int, TokenLogprob | None]]:
        limit = self._sent + characters
        released = []
        while self._pending and self._pending[0][0] <= limit:
            released.append(self._pending.popleft())
        return released

    def _delta(
        self,
        text: str,
        entries: list[tuple[int, int, TokenLogprob | None]],
        unshown: AbstractSequence[tuple[int, TokenLogprob | None]] = (),
    ) -> list[GenerationEvent]:
        """unshown: tokens at the end that are no part of the text, and are told only where that was asked for."""
        self._sent += len(text)
        config, shown = self.seq.config, [(token, scored) for _, token, scored in entries]
        ids = tuple(token for token, _ in (*shown, *(unshown if config.return_token_ids else ())))
        logprobs = tuple(scored for _, scored in shown if scored is not None)
        if config.return_token_ids or config.end_logprobs:
            logprobs += tuple(msgspec.structs.replace(scored, in_text=False) for _, scored in unshown if scored is not None)
        if not text and not ids and not logprobs:
            return []
        return [TextDelta(self.index, text, ids, logprobs)]

    def _end(
        self,
        reason: FinishReason,
        *,
        free: str = "",
        new: str = "",
        last: str = "",
        unshown: AbstractSequence[tuple[int, TokenLogprob | None]] = (),
        ended_by: int | None = None,
    ) -> list[GenerationEvent]:
        """free: text to send. new: text in which a stop string may be. last: what the text ends with, whatever it is. ended_by: the token
        that ends it."""
        events: list[GenerationEvent] = []
        new += self._detokenizer.flush()
        if self.thinking is not None:
            last = "" if self.seq.in_thought else last
            events, new = self._thoughts(self.thinking.end(new))
        more, stopped = self._stops.end(new, may_end=self._may_end)
        text = free + more + ("" if stopped else last)
        rest, self._pending = list(self._pending), deque()
        if stopped:
            end = ChoiceFinished(self.index, "stop", self._found())
        else:
            stop = None if ended_by is None else self._ends.names.get(ended_by)
            end = ChoiceFinished(self.index, reason, stop, ended_by if stop is None and ended_by in self._ends.asked else None)
        return [*events, *self._delta(text, rest, unshown), end]

    def _found(self) -> str | None:
        """The request's stop string that was found; those of the chat template are not the client's."""
        return found if (found := self._stops.found) in self.seq.config.stop else None
