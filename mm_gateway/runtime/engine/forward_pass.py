"""One forward pass, from what is scheduled to what is drawn: masks, logits, scores of prompts, pooled hidden states, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch

from mm_gateway.runtime.engine.forward.hidden_states import Pooler
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner, StepLogits
from mm_gateway.runtime.engine.guesses.output_rules import OutputRules
from mm_gateway.runtime.sampling.sampler import Sampled, Sampler
from mm_gateway.runtime.sampling.structured_output import TokenMasks
from mm_gateway.runtime.sampling.token_scores import TokenScores, score_tokens
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Computed:
    """What came out of a forward pass.

    Attributes:
        sequences: of each draw. One with guesses has a draw behind each of them, too, one after the other.
        pooled: by id of the sequences that are embedded and complete now: [hidden] fp32, as of `Pooler.add`.
    """

    sequences: list[Sequence]
    draws: list[Sampled]
    pooled: dict[int, torch.Tensor]

    def by_sequence(self) -> Iterator[tuple[Sequence, list[Sampled]]]:
        """The draws of each sequence."""
        for seq, rows in groupby(zip(self.sequences, self.draws, strict=True), key=lambda row: row[0]):
            yield seq, [draw for _, draw in rows]


class ForwardPass:
    """Keeps what passes leave behind for later ones of the same sequences. Called by the engine's thread.

    Args:
        rules: of the sequences that have some.
    """

    def __init__(self, runner: ModelRunner, sampler: Sampler, masks: TokenMasks, rules: OutputRules) -> None:
        self._runner = runner
        self._sampler = sampler
        self._masks = masks
        self._rules = rules
        self._pooler = Pooler()
        self._prompt_scores: dict[int, list[TokenScores | None]] = {}  # by sequence id

    def __len__(self) -> int:
        """Sequences of which prompt scores or hidden states are kept."""
        return len(self._prompt_scores) + len(self._pooler)

    def run(self, step: list[ScheduledSequence]) -> Computed:
        """Compute a step. What the sequences say of themselves does not change by it."""
        constrained = {
            scheduled.seq.id: allowed for scheduled in step if scheduled.sample and (allowed := self._rules.allowed(scheduled.seq))
        }
        masks = self._masks.start([each for allowed in constrained.values() for each in allowed]) if constrained else None
        result = self._runner.execute(step)
        self._score_prompts(result)
        pooled = self._pooler.add(result.hidden)
        masked = None
        if masks is not None:
            first_row = {seq.id: row for row, seq in reversed([*enumerate(result.sampled)])}
            masked = [first_row[id] + place for id, allowed in constrained.items() for place in range(len(allowed))], masks.result()
        draws = self._sampler.sample(result.logits, result.sampled, masked) if result.sampled else []
        return Computed(result.sampled, draws, pooled)

    def take_prompt_scores(self, seq: Sequence) -> list[TokenScores | None] | None:
        """Of the tokens of its prompt, once it was read, of which the first has none; None: nobody asked for them."""
        return self._prompt_scores.pop(seq.id, None)

    def forget(self, seq: Sequence) -> None:
        """The sequence is finished."""
        self._sampler.forget(seq)
        self._pooler.forget(seq)
        self._prompt_scores.pop(seq.id, None)

    def close(self) -> None:
        self._masks.close()

    def _score_prompts(self, result: StepLogits) -> None:
        for seq, logits in result.prompts:
            if not seq.computed:
                self._prompt_scores[seq.id] = [None]  # a preempted prompt begins again
            known = seq.tokens[seq.computed + 1 : min(seq.computed + len(logits) + 1, seq.prompt_len)]
            if known:
                self._prompt_scores[seq.id] += score_tokens(logits[: len(known)], known, seq.config.prompt_logprobs or 0)
