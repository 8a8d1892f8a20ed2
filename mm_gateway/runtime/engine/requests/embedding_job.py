"""One request for embeddings in the engine; fed to the scheduler a few inputs at a time, so that it fills no queue that others wait in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.scheduling.sequence import Sequence

WINDOW = 64
"""Sequences of one request that the scheduler holds at a time, where its queue is not shorter."""


def check_embedding(style: EmbeddingStyle, dimensions: int | None, *, size: int) -> None:
    """Whether a model gives embeddings of so many numbers; None: all `size` that its hidden states have.

    Raises:
        InvalidRequestError: it has no embeddings, or none of that size.
        UnsupportedParameterError: it was not trained for shorter ones.
    """
    if style.unfit is not None:
        raise InvalidRequestError(f"This model does not support embeddings: {style.unfit}", param="model")
    if dimensions is not None and not 1 <= dimensions <= size:
        raise InvalidRequestError(f"dimensions must be between 1 and {size} for this model", param="dimensions")
    if dimensions not in (None, size) and not style.matryoshka:
        raise UnsupportedParameterError(
            f"dimensions: this model's embeddings have {size} numbers, and their beginnings mean nothing by "
            "themselves. For a model that was trained so that they do, set matryoshka: true in its configuration",
            param="dimensions",
            code="unsupported_value",
        )


@dataclass(eq=False, slots=True)
class EmbeddingJob:
    """One request's inputs.

    Attributes:
        backlog: (index of the input, its sequence) of those that the scheduler does not hold yet.
        dimensions: numbers of a vector; None: all. prompt_tokens: over all inputs.
        window: sequences that the scheduler holds at a time.
        live: index of the input by sequence id, of those that the scheduler holds.
    """

    generation: Generation
    backlog: deque[tuple[int, Sequence]]
    dimensions: int | None
    prompt_tokens: int
    window: int = WINDOW
    live: dict[int, tuple[int, Sequence]] = field(default_factory=dict)

    @property
    def sequences(self) -> list[Sequence]:
        """Those that the scheduler holds."""
        return [seq for _, seq in self.live.values()]

    @property
    def places(self) -> int:
        """Places of the queue that it takes: those of the sequences that the scheduler holds, or will once it was fed."""
        return len(self.live) + min(len(self.backlog), self.window - len(self.live))

    def feed(self) -> Iterator[Sequence]:
        """Sequences that the scheduler is to hold now."""
        while self.backlog and len(self.live) < self.window:
            index, seq = self.backlog.popleft()
            self.live[seq.id] = (index, seq)
            yield seq
