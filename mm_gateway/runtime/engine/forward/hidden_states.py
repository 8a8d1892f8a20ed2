"""What a causal model computes before its head: caught on the way in an ordinary forward pass, and pooled to one vector a sequence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as AbstractSequence

import torch
from transformers import PreTrainedModel

from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.scheduling.sequence import Sequence


def embedding_style_of(model: PreTrainedModel, style: EmbeddingStyle | None) -> EmbeddingStyle:
    """How the model embeds, None: by the mean; `unfit` where it is no head on a base model, which `last_hidden_states` needs."""
    style = style or EmbeddingStyle()
    if style.unfit is None and model.base_model is model:
        return EmbeddingStyle(unfit=f"{type(model).__name__} does not show its hidden states")
    return style


@contextlib.contextmanager
def last_hidden_states(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """The last hidden states of the forward passes within the context: [1, tokens, hidden] each, in the model's dtype.

    The head still computes logits of the rows that it is asked for, and only those, so sequences that are embedded and
    sequences that are continued go through the model together.
    """
    seen: list[torch.Tensor] = []
    handle = model.base_model.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    try:
        yield seen
    finally:
        handle.remove()


class Pooler:
    """Pools the hidden states of sequences whose tokens come in chunks. Called by the engine's thread."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}  # by sequence id: [hidden] fp32, over the chunks so far

    def __len__(self) -> int:
        """Sequences of which something is kept."""
        return len(self._sums)

    def add(self, hidden: AbstractSequence[tuple[Sequence, torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Take a step's hidden states in, before `computed` of its sequences grows.

        Returns:
            By sequence id, for those that are complete: the sum (mean) or the last of its hidden states, [hidden] fp32, on
            the CPU and not yet of length 1.
        """
        complete: list[int] = []
        pooled: list[torch.Tensor] = []
        for seq, rows in hidden:
            ends = seq.computed + len(rows) == len(seq.tokens)
            if seq.pooling == "mean":
                total = rows.sum(0, dtype=torch.float32)
                if seq.computed:  # a preempted sequence begins again at 0
                    total += self._sums[seq.id]
                self._sums[seq.id] = total
            if ends:
                complete.append(seq.id)
                pooled.append(self._sums.pop(seq.id) if seq.pooling == "mean" else rows[-1].float())
        if not complete:
            return {}
        return dict(zip(complete, torch.stack(pooled).cpu(), strict=True))  # one transfer for all

    def forget(self, seq: Sequence) -> None:
        self._sums.pop(seq.id, None)


def unit_vector(pooled: torch.Tensor, dimensions: int | None) -> bytes | None:
    """The first `dimensions` numbers (None: all) of a pooled vector, L2-normalised, as little-endian float32; None: they are no numbers."""
    vector = torch.nn.functional.normalize(pooled[:dimensions], dim=0)
    return vector.numpy().astype("<f4").tobytes() if bool(vector.isfinite().all()) else None
