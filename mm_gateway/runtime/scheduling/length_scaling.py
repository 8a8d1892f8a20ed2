"""Rotary angles that depend on a sequence's length beside the position (`longrope`, `dynamic`): which ones a sequence has; pure."""

from __future__ import annotations

from dataclasses import dataclass

from mm_gateway.runtime.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class LengthScaling:
    """Up to `original` tokens a sequence has the angles of training; beyond them others.

    Attributes:
        original: tokens, >= 1.
        switches: there is one other set of angles (longrope), and a text that grows beyond `original` is computed anew with it, as
            Phi-3's `generate` does, so that all of its keys have the same. Else every length has its own (dynamic NTK): a prompt those of
            its length, and each later token those of the length that it makes, as in `generate`.
    """

    original: int
    switches: bool

    def as_if(self, length: int) -> int:
        """The smallest length with the same angles as this one."""
        return self.original + (length > self.original) if self.switches else max(self.original, length)

    def begin(self, seq: Sequence) -> None:
        """It is computed from its start."""
        seq.angle_len = len(seq.tokens) if self.switches else seq.prompt_len
        seq.angles = self.as_if(seq.angle_len) - self.original

    def is_outgrown(self, seq: Sequence) -> bool:
        """Its keys have angles that it is too long for by now."""
        return self.switches and not seq.angles and len(seq.tokens) > self.original
