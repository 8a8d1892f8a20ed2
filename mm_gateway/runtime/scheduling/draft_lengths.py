"""How many tokens a draft model guesses for whom: those that pay, by how often it was right and what passes took; pure, knows no models.

A guess is worth its cost where it brings more tokens a second than the step has without it (https://arxiv.org/abs/2211.17192, section
3.4, with what is measured in place of assumed ratios). One pass of the draft model guesses one more token for every sequence at once,
and each guess is a row more of the step that checks it.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence

LONGEST_DRAFT = 15
_HOPE = 0.8
"""How often guesses are taken to be right before there were any, and again after a long time without."""
_FORGET = 0.005
_LEARN = 0.15


class Acceptance:
    """How often the guesses for one sequence are right, [0, 1]."""

    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = _HOPE

    def learn(self, guessed: int, accepted: int) -> None:
        """Of tokens that were guessed one after the other, the first `accepted` were right; those behind a wrong one say nothing."""
        for _ in range(accepted):
            self.rate += _LEARN * (1 - self.rate)
        if accepted < guessed:
            self.rate -= _LEARN * self.rate

    def forget(self) -> None:
        """A step went by without a guess: what was may not be so any more."""
        self.rate += _FORGET * (_HOPE - self.rate)


class Costs:
    """Seconds of steps by their rows, and of passes of the draft model, as of late.

    Steps are taken to cost `fixed + row * rows`: the line through them, by least squares, of which the older ones count less.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_squared = self._products = 0.0
        self.pass_s: float | None = None
        """None: there was none yet."""

    def add_step(self, rows: int, seconds: float) -> None:
        for name, value in (
            ("_weight", 1.0),
            ("_rows", rows),
            ("_seconds", seconds),
            ("_rows_squared", rows * rows),
            ("_products", rows * seconds),
        ):
            setattr(self, name, 0.98 * getattr(self, name) + value)

    def add_pass(self, seconds: float) -> None:
        self.pass_s = seconds if self.pass_s is None else 0.9 * self.pass_s + 0.1 * seconds

    def line(self) -> tuple[float, float] | None:
        """(fixed, row); None: there was no step yet."""
        if not self._weight:
            return None
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_squared / self._weight - rows * rows
        # Steps of one size alone do not say what a row takes; a twentieth is what a small step's rows cost beside its weights.
        row = (self._products / self._weight - rows * seconds) / variance if variance > 1e-3 else seconds / (20 + rows)
        row = min(max(row, 0.0), seconds / max(rows, 1.0))
        return seconds - row * rows, row


class DraftPlan:
    """Decides, pass by pass of one step, for which sequences another token is guessed.

    Args:
        decodes: sequences of the step, each of which gets a token in any case. fixed: guesses of each sequence, whatever they cost;
            None: as many as pay.
    """

    def __init__(self, costs: Costs, decodes: int, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._pass_s = costs.pass_s
        self._row_s = 0.0
        self._tokens = float(decodes)
        self._seconds: float | None = None
        if (line := costs.line()) is not None:
            self._row_s = line[1]
            self._seconds = line[0] + line[1] * decodes

    def next_pass(self, rates: AbstractSequence[float], guessed: int) -> list[int]:
        """Which of the sequences that may have another guess get one, by their places; none: the step is complete.

        Args:
            rates: of their guesses. guessed: tokens that each of them has got in this step.
        """
        if self._fixed is not None:
            return list(range(len(rates))) if guessed < self._fixed else []
        if guessed >= LONGEST_DRAFT:
            return []
        if self._seconds is None or self._pass_s is None:  # nothing is known yet, so something is tried
            return list(range(len(rates))) if guessed < 2 else []
        gains = [rate ** (guessed + 1) for rate in rates]
        pace = self._tokens / self._seconds
        chosen = [place for place, gain in enumerate(gains) if gain > self._row_s * pace]
        gain, cost = sum(gains[place] for place in chosen), self._pass_s + self._row_s * len(chosen)
        if gain <= cost * pace:
            return []
        self._tokens += gain
        self._seconds += cost
        return chosen
