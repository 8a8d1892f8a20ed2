"""What guesses how texts go on, and how often that was right: what repeats is looked up, and a small model may guess the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as AbstractSequence

from mm_gateway.runtime.engine.guesses.draft_model import DraftModel
from mm_gateway.runtime.engine.requests.thinking import Thinking
from mm_gateway.runtime.engine.stats import Guesses
from mm_gateway.runtime.sampling.structured_output import GrammarState
from mm_gateway.runtime.scheduling.prompt_lookup import PromptLookup
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence


class Guessing:
    """Of the sequences of one engine. Called by its thread, but for the counts.

    Args:
        lookup: whether what repeats is looked up. draft: a model that guesses, for the scheduler; None: there is none.
    """

    def __init__(self, *, lookup: bool, draft: DraftModel | None) -> None:
        self._looks_up = lookup
        self._draft = draft
        self._counts = Guesses(), Guesses()  # looked up; of the draft model

    @property
    def looked_up(self) -> Guesses:
        """What came of it so far. Any thread."""
        return dataclasses.replace(self._counts[False])

    @property
    def drafted(self) -> Guesses:
        """As `looked_up`, of the draft model."""
        return dataclasses.replace(self._counts[True])

    def begin(self, seq: Sequence, rules: GrammarState | Thinking | None, prediction: AbstractSequence[int]) -> None:
        """Guess for a sequence from now on, unless its request forbids it.

        Args:
            rules: of its output; None: it has none. prediction: tokens that it is likely to be.
        """
        if not seq.config.speculation or seq.max_tokens <= 1:
            return
        if self._looks_up:
            seq.lookup = PromptLookup(prediction)
        if self._draft is not None:
            self._draft.begin(seq, rules)

    def note_step(self, step: AbstractSequence[ScheduledSequence], seconds: float) -> None:
        """How long a step took. One that reads a prompt is no measure of what guesses cost."""
        if self._draft is not None and all(scheduled.count == 1 + scheduled.seq.draft_len for scheduled in step):
            self._draft.costs.add_step(sum(scheduled.count for scheduled in step), seconds)

    def learn(self, seq: Sequence, guessed: int, accepted: int) -> None:
        """What became of the guesses of a step: how many of them were right."""
        self._counts[seq.drafted].add(guessed, accepted)
        if seq.drafted and self._draft is not None:
            self._draft.learn(seq, guessed, accepted)
        elif seq.lookup is not None:
            seq.lookup.learn(seq.tokens, guessed, accepted)

    def forget(self, seq: Sequence, *, discard: bool) -> None:
        """The sequence is finished. discard: as for `Scheduler.remove`."""
        if self._draft is not None:
            self._draft.forget(seq, discard=discard)

    def close(self) -> None:
        if self._draft is not None:
            self._draft.close()
