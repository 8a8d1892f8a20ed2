"""What may come next in each text, and behind the guesses that a step checks: grammars, thoughts, barred tokens."""

from __future__ import annotations

from typing import NamedTuple

from mm_gateway.runtime.engine.requests.thinking import Thinking
from mm_gateway.runtime.sampling.structured_output import Allowed, GrammarState
from mm_gateway.runtime.scheduling.sequence import Sequence


class Foreseen(NamedTuple):
    """What the draws behind guesses were made from.

    Attributes:
        allowed: what might come next before the first guess. states: of its grammar after each guess. barred: tokens after each.
    """

    allowed: Allowed | None
    states: list[GrammarState]
    barred: list[set[int]]


class OutputRules:
    """Of the sequences of one engine. Called by its thread."""

    def __init__(self) -> None:
        # By sequence id:
        self._rules: dict[int, GrammarState | Thinking] = {}
        self._foreseen: dict[int, Foreseen] = {}  # behind the guesses of the last step

    def __len__(self) -> int:
        """Sequences of which something is kept."""
        return len(self._rules.keys() | self._foreseen.keys())

    def begin(self, seq: Sequence, rules: GrammarState | Thinking) -> None:
        """What the output of a sequence has to follow from now on; one without rules may say anything."""
        self._rules[seq.id] = rules
        seq.count_accepted = rules.count_accepted

    def of(self, seq: Sequence) -> GrammarState | Thinking | None:
        """None: it has none."""
        return self._rules.get(seq.id)

    def forget(self, seq: Sequence) -> None:
        """The sequence is finished."""
        self._rules.pop(seq.id, None)
        self._foreseen.pop(seq.id, None)

    def allowed(self, seq: Sequence) -> list[Allowed]:
        """What may come next, and after each guess; empty where anything may."""
        self._foreseen.pop(seq.id, None)
        rules = self.of(seq)
        now = rules.allowed() if rules is not None else None
        states: list[GrammarState] = []
        if seq.draft_len:
            if now is not None and now.state is not None:
                states = now.state.ahead(seq.tokens[seq.known :])
            barred = [seq.barred_tokens(place) for place in range(1, seq.draft_len + 1)] if seq.barred is not None else []
            self._foreseen[seq.id] = Foreseen(now, states, barred)
        return [] if now is None else [now, *(state.allowed() for state in states)]

    def is_as_foreseen(self, seq: Sequence, accepted: int) -> bool:
        """Whether what may come next is what the draw behind the guess number `accepted` was made from. A thought that ends or begins
        there changes it."""
        foreseen, rules = self._foreseen[seq.id], self.of(seq)
        before, now = foreseen.allowed, rules.allowed() if rules is not None else None
        if before is None or now is None:
            if before is not now:
                return False
        elif now.state is not before.state or now.besides != before.besides:
            return False
        if foreseen.states and now is not None and now.state is not None:
            now.state.fault = foreseen.states[accepted - 1].fault
        return not foreseen.barred or seq.barred_tokens() == foreseen.barred[accepted - 1]
