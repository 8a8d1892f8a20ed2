"""What a reasoning format is: what opens and closes a thought, and how thoughts are read out of streamed text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from mm_gateway.core import Effort

State = Literal["undecided", "thought", "between", "answer"]
"""Where a text is: not known yet, within a thought, behind one and before the answer, within the answer."""


class Piece(NamedTuple):
    """A piece of a model's text. `mark`: what opens or closes a thought, and white space around it, which no client sees."""

    part: Literal["thought", "mark", "answer"]
    text: str


class ThoughtReader(Protocol):
    """Reads one text as it comes; the pieces together are all of it.

    Attributes:
        state: where it is after what was fed.
    """

    state: State

    @property
    def is_closing(self) -> bool:
        """Within a thought: whether what was fed last may be the beginning of what closes it."""
        ...

    def feed(self, text: str) -> list[Piece]: ...

    def begin_answer(self) -> None:
        """Behind a thought: what comes next is part of the answer, white space as well."""
        ...

    def end(self) -> list[Piece]:
        """What was held back, once no more text can come."""
        ...


@dataclass(frozen=True)
class ReasoningFormat:
    """One format; adding one is a row in `formats.py`.

    Attributes:
        opening, closing: what a model writes before and after a thought.
        forced: what closes a thought that has to end, as the model would have written it, up to where its answer begins.
        new_reader: a reader of a text that begins in a state.
        efforts: words for how much to think that the model knows, where not all that a template takes; empty: whatever that takes.
        turn: in a format where thought and answer are messages: what each of them begins with after the first.
        answer_opening: likewise, what an answer begins with.
        further_marks: further names of special tokens that its texts are made of.
    """

    name: str
    opening: str
    closing: str
    forced: str
    new_reader: Callable[[State], ThoughtReader]
    efforts: tuple[Effort, ...] = ()
    turn: str = ""
    answer_opening: str = ""
    further_marks: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of tokens that are read as text even where they are special."""
        return self.further_marks or (self.opening, self.closing)

    def state_after(self, prompt: str) -> State:
        """Where the reply to a prompt begins, by the end of its text: a template may have opened the thought, or opened and closed it."""
        end = prompt.rstrip()
        if end.endswith(self.opening.rstrip()):
            return "thought"
        return "answer" if not self.turn and end.endswith(self.closing) else "undecided"

    def is_open(self, text: str) -> bool:
        """Whether a text ends within a thought."""
        return text.rfind(self.opening) > text.rfind(self.closing)


@dataclass(frozen=True)
class ThoughtPlan:
    """How the replies to one request think.

    Attributes:
        state: where each of them begins. budget: tokens of thought in each; None: no limit but that of the reply.
    """

    format: ReasoningFormat
    state: State
    budget: int | None = None
