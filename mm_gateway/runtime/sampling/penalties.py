"""How often each running sequence with penalties has met each token, and what that takes from its logits."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence

import torch

from mm_gateway.runtime.scheduling.sequence import Sequence


class TokenCounts:
    """Counts as tensors on the device, one row a sequence; allocated when the first sequence with penalties comes.

    A sequence that was preempted may lose its row to one that runs; what it has met is counted again when it is back.

    Args:
        vocab_size: tokens. max_running: rows, as many as sequences can be in one batch.
    """

    def __init__(self, vocab_size: int, max_running: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._max_running = max_running
        self._device = device
        self._free = list(reversed(range(max_running)))
        self._row: dict[int, int] = {}
        self._counted: dict[int, int] = {}  # by sequence id: tokens that its row knows
        self._generated: torch.Tensor | None = None  # [rows, vocabulary] int16
        self._seen: torch.Tensor | None = None  # [rows, vocabulary] bool, prompt and output

    @property
    def table_bytes(self) -> int:
        """Memory of the tables once there are any: three bytes a token of the vocabulary and a running sequence."""
        return self._max_running * self._vocab_size * (torch.int16.itemsize + torch.bool.itemsize)

    def apply(self, logits: torch.Tensor, rows: torch.Tensor, sequences: list[Sequence], ahead: AbstractSequence[int]) -> None:
        """Subtract penalties in place.

        Repetition penalty: CTRL (https://arxiv.org/abs/1909.05858); presence and frequency: OpenAI's formula.

        Args:
            logits: [n, vocabulary] fp32. rows: those that `sequences` stand for. ahead: how many of its sequence's guesses each row is
                behind; they count as if they were right.
        """
        self._count(sequences)
        generated, seen = self._tables()
        own = torch.tensor([self._row[seq.id] for seq in sequences], device=self._device)
        counts, met = generated[own], seen[own]
        guesses = [(row, token) for row, seq in enumerate(sequences) for token in seq.tokens[seq.known : seq.known + ahead[row]]]
        if guesses:
            where, tokens = torch.tensor(guesses, device=self._device).unbind(-1)
            counts.index_put_((where, tokens), torch.ones_like(tokens, dtype=torch.int16), accumulate=True)
            met[where, tokens] = True
        configs = [seq.config for seq in sequences]

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

        chosen = logits[rows]
        repetition = column([1.0 if c.repetition_penalty is None else c.repetition_penalty for c in configs])
        chosen = torch.where(met, torch.where(chosen > 0, chosen / repetition, chosen * repetition), chosen)
        chosen -= counts * column([c.frequency_penalty for c in configs]) + (counts > 0) * column([c.presence_penalty for c in configs])
        logits[rows] = chosen

    def forget(self, seq: Sequence) -> None:
        row = self._row.pop(seq.id, None)
        self._counted.pop(seq.id, None)
        if row is not None:
            self._free.append(row)

    def _count(self, sequences: list[Sequence]) -> None:
        """Bring the rows of these sequences up to date."""
        generated, seen = self._tables()
        missing = {seq.id: seq for seq in sequences if seq.id not in self._row}
        if len(missing) > len(self._free):  # rows of sequences that are not in this batch, which were preempted as a rule
            here = {seq.id for seq in sequences}
            self._free += [self._row.pop(id) for id in list(self._row) if id not in here]
        for seq in missing.values():
            row = self._row[seq.id] = self._free.pop()
            generated[row], seen[row] = 0, False
            seen[row, torch.tensor(seq.tokens[: seq.prompt_len], device=self._device)] = True
            self._counted[seq.id] = seq.prompt_len
        new = [
            (self._row[seq.id], token)
            for seq in {seq.id: seq for seq in sequences}.values()
            for token in seq.tokens[self._counted[seq.id] : seq.known]
        ]
        if new:
            rows, tokens = torch.tensor(new, device=self._device).unbind(-1)
            generated.index_put_((rows, tokens), torch.ones_like(tokens, dtype=torch.int16), accumulate=True)
            seen[rows, tokens] = True
        for seq in sequences:
            self._counted[seq.id] = seq.known

    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._generated is None or self._seen is None:
            shape = (self._max_running, self._vocab_size)
            self._generated = torch.zeros(shape, dtype=torch.int16, device=self._device)
            self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
        return self._generated, self._seen
