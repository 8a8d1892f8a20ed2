"""Samples the next token of every sequence of a step at once: penalties, truncation, seeds, log-probabilities; knows nothing of text.

Order of operations: repetition, presence and frequency penalties, logit bias, temperature, top-k, top-p (of what top-k
left), min-p. What a grammar does not allow goes before the temperature, as do barred tokens. Log-probabilities are those of the
model's own distribution, before all of it.

The random numbers of a draw are hashes of the sequence's seed, the token's position and its id (`token_noise`): neither
neighbours nor preemption can change them.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import torch

from mm_gateway.runtime.kernels.argmax import most_probable
from mm_gateway.runtime.sampling.draws import draw_free, draw_truncated
from mm_gateway.runtime.sampling.noise import noise_keys
from mm_gateway.runtime.sampling.penalties import TokenCounts
from mm_gateway.runtime.sampling.token_scores import TokenScores, scores_of
from mm_gateway.runtime.scheduling.sequence import Sequence

MIN_TEMPERATURE = 1e-5
"""Below it a draw is greedy, as in vLLM: logits divided by less leave the range of fp32, and the most probable token is certain anyway."""

_MOST_BATCHES = 32


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sequence's draw.

    Attributes:
        token: None where its logits held no usable number (NaN or infinite), or where every token is barred.
        all_barred: grammar, `min_tokens` and `bad_words` together leave no token.
    """

    token: int | None
    scores: TokenScores | None
    all_barred: bool = False


class Sampler:
    """Batched sampling over a vocabulary of `vocab_size` tokens on one device.

    Keeps the parameters of the last batches as tensors, because the same sequences come back step after step, with and without
    guesses, and the token counts of sequences with penalties until `forget`.

    Args:
        max_running: sequences of a batch, >= 1.
    """

    def __init__(self, vocab_size: int, device: torch.device, *, max_running: int) -> None:
        self._device = device
        self._counts = TokenCounts(vocab_size, max_running, device)
        self._batches: dict[tuple[int, ...], _Batch] = {}  # by the ids of their rows' sequences

    @property
    def penalty_bytes(self) -> int:
        """Memory on the device that is taken when the first sequence with penalties comes."""
        return self._counts.table_bytes

    def sample(
        self, logits: torch.Tensor, sequences: list[Sequence], masked: tuple[list[int], torch.Tensor] | None = None
    ) -> list[Sampled]:
        """Draw one token per row.

        Args:
            sequences: of each row. One with guesses has a row for the token after each of them, too, one after the other.
            logits: [len(sequences), vocabulary] fp32; may be overwritten.
            masked: rows whose tokens are restricted, and [len(rows), vocabulary] bool, True for those that may be drawn.
        """
        batch = self._batch_of(sequences, logits.shape[-1])
        if masked is None and batch.is_plain and (found := most_probable(logits)) is not None:
            return [Sampled(token if token >= 0 else None, None) for token in found]
        ahead = _ahead(sequences)
        usable = torch.isfinite(logits.amax(-1))
        log_normalizer = logits[batch.scored].logsumexp(-1) if batch.scored_rows else None
        raw = logits[batch.scored] if batch.scored_rows else None
        stuck = self._restrict(logits, batch, sequences, ahead, masked)
        drawn = self._draw(logits, batch, sequences, ahead)
        scores: dict[int, TokenScores] = {}
        if raw is not None and log_normalizer is not None:
            scores = scores_of(raw, log_normalizer, drawn[batch.scored], batch.top, batch.scored_rows)
        # The one transfer to the host of a step without log-probabilities.
        tokens = torch.where(usable, drawn, -1).tolist()
        for row in stuck:
            tokens[row] = -1
        return [Sampled(token if token >= 0 else None, scores.get(row), row in stuck) for row, token in enumerate(tokens)]

    def propose(
        self, logits: torch.Tensor, sequences: list[Sequence], masked: tuple[list[int], torch.Tensor] | None = None
    ) -> list[int | None]:
        """As `sample` would draw the token behind all guesses of each sequence, from the logits of another model; None: from none."""
        batch = self._batch_of(sequences, logits.shape[-1])
        if masked is None and batch.is_plain and (found := most_probable(logits)) is not None:
            return [token if token >= 0 else None for token in found]
        ahead = [seq.draft_len for seq in sequences]
        usable = torch.isfinite(logits.amax(-1))
        stuck = self._restrict(logits, batch, sequences, ahead, masked)
        tokens = torch.where(usable, self._draw(logits, batch, sequences, ahead), -1).tolist()
        return [None if token < 0 or row in stuck else token for row, token in enumerate(tokens)]

    def _batch_of(self, sequences: list[Sequence], vocab_size: int) -> _Batch:
        ids = tuple(seq.id for seq in sequences)
        batch = self._batches.get(ids)
        if batch is None:
            if len(self._batches) >= _MOST_BATCHES:
                self._batches.clear()
            batch = self._batches[ids] = _Batch(sequences, vocab_size, self._device)
        return batch

    def _restrict(
        self,
        logits: torch.Tensor,
        batch: _Batch,
        sequences: list[Sequence],
        ahead: list[int],
        masked: tuple[list[int], torch.Tensor] | None,
    ) -> list[int]:
        """Penalties, biases, grammars and barred tokens, in place; the rows that these leave no token."""
        if batch.penalized_rows:
            rows = batch.penalized_rows
            self._counts.apply(logits, batch.penalized, [sequences[row] for row in rows], [ahead[row] for row in rows])
        if batch.biases is not None:
            rows, tokens, values = batch.biases
            logits.index_put_((rows, tokens), values, accumulate=True)
        if masked is not None:
            rows = torch.tensor(masked[0], dtype=torch.int64).to(self._device)
            logits[rows] = logits[rows].masked_fill_(~masked[1].to(self._device), -torch.inf)
        return self._bar(logits, batch.barred_rows, sequences, ahead) if batch.barred_rows else []

    def forget(self, seq: Sequence) -> None:
        """The sequence is finished; its counts go."""
        self._counts.forget(seq)

    def _bar(self, logits: torch.Tensor, rows: list[int], sequences: list[Sequence], ahead: list[int]) -> list[int]:
        """Take barred tokens out, in place; the rows that have none left, where there was a usable number before."""
        entries = [(row, token) for row in rows for token in sequences[row].barred_tokens(ahead[row])]
        if not entries:
            return []
        usable = torch.isfinite(logits[rows].amax(-1))
        where, tokens = torch.tensor(entries, dtype=torch.int64).to(self._device).unbind(-1)
        logits[where, tokens] = -torch.inf
        left = torch.isfinite(logits[rows].amax(-1))
        return [row for row, stuck in zip(rows, (usable & ~left).tolist(), strict=True) if stuck]

    def _draw(self, logits: torch.Tensor, batch: _Batch, sequences: list[Sequence], ahead: list[int]) -> torch.Tensor:
        drawn = torch.empty(len(sequences), dtype=torch.int64, device=self._device)
        if batch.greedy_rows:
            if len(batch.greedy_rows) == len(sequences):
                return logits.argmax(-1)
            drawn[batch.greedy] = logits[batch.greedy].argmax(-1)
        keys = noise_keys([(seq.seed, seq.output_len + place) for seq, place in zip(sequences, ahead, strict=True)]).to(self._device)
        if batch.free_rows:
            drawn[batch.free] = draw_free(logits[batch.free] / batch.temperature[batch.free, None], keys[batch.free])
        if batch.truncated_rows:
            rows = batch.truncated
            drawn[rows] = draw_truncated(
                logits[rows] / batch.temperature[rows, None], keys[rows], batch.top_k[rows], batch.top_p[rows], batch.min_p[rows]
            )
        return drawn


class _Batch:
    """Parameters of a batch as tensors, rows grouped by what they need.

    Attributes:
        is_plain: every row's token is its most probable one, of logits as they are, and nothing is told of it.
    """

    def __init__(self, sequences: list[Sequence], vocab_size: int, device: torch.device) -> None:
        configs = [seq.config for seq in sequences]

        def column(values: AbstractSequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype).to(device)

        def rows(wanted: list[int]) -> torch.Tensor:
            return column(wanted, torch.int64)

        temperatures = [1.0 if config.temperature is None else config.temperature for config in configs]
        top_ks = [config.top_k if config.top_k and 0 < config.top_k < vocab_size else 0 for config in configs]
        top_ps = [1.0 if config.top_p is None else config.top_p for config in configs]
        min_ps = [config.min_p or 0.0 for config in configs]
        self.greedy_rows = [row for row, temperature in enumerate(temperatures) if temperature < MIN_TEMPERATURE]
        sampling = [row for row, temperature in enumerate(temperatures) if temperature >= MIN_TEMPERATURE]
        self.truncated_rows = [row for row in sampling if top_ks[row] or top_ps[row] < 1 or min_ps[row] > 0]
        self.free_rows = [row for row in sampling if row not in set(self.truncated_rows)]
        self.greedy, self.truncated, self.free = rows(self.greedy_rows), rows(self.truncated_rows), rows(self.free_rows)
        self.temperature, self.top_p = column(temperatures), column(top_ps)
        self.top_k = column(top_ks, torch.int64)
        self.min_p = column(min_ps)
        self.penalized_rows = [
            row
            for row, config in enumerate(configs)
            if config.presence_penalty or config.frequency_penalty or config.repetition_penalty not in (None, 1.0)
        ]
        self.penalized = rows(self.penalized_rows)
        self.barred_rows = [row for row, seq in enumerate(sequences) if seq.barred is not None]
        self.scored_rows = [row for row, config in enumerate(configs) if config.logprobs is not None]
        self.scored = rows(self.scored_rows)
        self.top = [configs[row].logprobs or 0 for row in self.scored_rows]
        entries = [(row, token, bias) for row, config in enumerate(configs) for token, bias in config.logit_bias.items()]
        self.biases = (rows([e[0] for e in entries]), rows([e[1] for e in entries]), column([e[2] for e in entries])) if entries else None
        touched = self.penalized_rows or self.barred_rows or self.scored_rows or entries
        self.is_plain = len(self.greedy_rows) == len(sequences) and not touched


def _ahead(sequences: list[Sequence]) -> list[int]:
    """How many guesses of its sequence each row is behind."""
    found: list[int] = []
    for row, seq in enumerate(sequences):
        found.append(found[-1] + 1 if row > 0 and sequences[row - 1] is seq else 0)
    return found
