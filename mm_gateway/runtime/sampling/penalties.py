"""How often each running sequence with penalties has met each token, and what that takes from its logits."""

from __future__ import annotations

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
        self._generated: torch.Tensor | None = None  # [rows, vocabulary] int16
        self._seen: torch.Tensor | None = None  # [rows, vocabulary] bool, prompt and output

    @property
    def table_bytes(self) -> int:
        """Memory of the tables once there are any: three bytes a token of the vocabulary and a running sequence."""
        return self._max_running * self._vocab_size * (torch.int16.itemsize + torch.bool.itemsize)

    def apply(self, logits: torch.Tensor, rows: torch.Tensor, sequences: list[Sequence]) -> None:
        """Subtract penalties in place.

        Repetition penalty: CTRL (https://arxiv.org/abs/1909.05858); presence and frequency: OpenAI's formula.

        Args:
            logits: [n, vocabulary] fp32. rows: those that `sequences` stand for.
        """
        generated, seen = self._tables()
        own = self._rows(sequences)
        counts = generated[own]
        configs = [seq.config for seq in sequences]

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

        chosen = logits[rows]
        repetition = column([1.0 if c.repetition_penalty is None else c.repetition_penalty for c in configs])
        chosen = torch.where(seen[own], torch.where(chosen > 0, chosen / repetition, chosen * repetition), chosen)
        chosen -= counts * column([c.frequency_penalty for c in configs]) + (counts > 0) * column([c.presence_penalty for c in configs])
        logits[rows] = chosen

    def add(self, sequences: list[Sequence], tokens: torch.Tensor) -> None:
        """tokens [n]: what each sequence drew."""
        generated, seen = self._tables()
        own = self._rows(sequences)
        generated[own, tokens] += 1
        seen[own, tokens] = True

    def forget(self, seq: Sequence) -> None:
        row = self._row.pop(seq.id, None)
        if row is not None:
            self._free.append(row)

    def _rows(self, sequences: list[Sequence]) -> torch.Tensor:
        missing = [seq for seq in sequences if seq.id not in self._row]
        if len(missing) > len(self._free):  # every running sequence is in every batch, so who is not in this one was preempted
            here = {seq.id for seq in sequences}
            self._free += [self._row.pop(id) for id in list(self._row) if id not in here]
        for seq in missing:
            self._count(seq)
        return torch.tensor([self._row[seq.id] for seq in sequences], device=self._device)

    def _count(self, seq: Sequence) -> None:
        """Give the sequence a row that says what it has met so far."""
        row = self._row[seq.id] = self._free.pop()
        generated, seen = self._tables()
        generated[row], seen[row] = 0, False
        seen[row, torch.tensor(seq.tokens, device=self._device)] = True
        output = torch.tensor(seq.tokens[seq.prompt_len :], dtype=torch.int64, device=self._device)
        generated[row].index_add_(0, output, torch.ones_like(output, dtype=torch.int16))

    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._generated is None or self._seen is None:
            shape = (self._max_running, self._vocab_size)
            self._generated = torch.zeros(shape, dtype=torch.int16, device=self._device)
            self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
        return self._generated, self._seen
