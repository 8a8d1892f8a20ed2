"""Runs a step's tokens through the model: builds packed inputs, owns the KV cache, returns logits; knows no sampling or text."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.engine.forward.attention_hook import LayerCall, forward
from mm_gateway.runtime.engine.forward.compiled_forward import CompiledForward, compile_forward
from mm_gateway.runtime.engine.forward.decode_graphs import DecodeGraphs
from mm_gateway.runtime.engine.forward.hidden_states import last_hidden_states
from mm_gateway.runtime.engine.forward.sequence_angles import SequenceAngles
from mm_gateway.runtime.kernels.model import Segment
from mm_gateway.runtime.kv_cache.cache import AttentionShape, KVCache, StepAttention
from mm_gateway.runtime.scheduling.length_scaling import LengthScaling
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepLogits:
    """What a step computed.

    Attributes:
        sampled: sequences whose next token is to be sampled; one with guesses once more for each of them, to be sampled after it.
        logits: [len(sampled), vocabulary], fp32, in that order.
        prompts: (sequence, logits [n, vocabulary] of its scheduled positions) where prompt log-probabilities were asked for.
        hidden: (sequence, [n, hidden] last hidden states of its scheduled positions) of those that are to be embedded.
    """

    sampled: list[Sequence]
    logits: torch.Tensor
    prompts: list[tuple[Sequence, torch.Tensor]]
    hidden: list[tuple[Sequence, torch.Tensor]]


class ModelRunner:
    """One model with its KV cache. All calls come from the engine's thread, under inference mode.

    Args:
        model: in evaluation mode, its attention taken over (`probe`).
        cache: keys and values of the running sequences. angles: the model's, its rotary modules taken over.
    """

    def __init__(self, model: PreTrainedModel, cache: KVCache, shape: AttentionShape, angles: SequenceAngles) -> None:
        self._model = model
        self.cache = cache
        self._shape = shape
        self._angles = angles
        self.device = model.device
        self._graphs: DecodeGraphs | None = None
        self._compiled: CompiledForward | None = None

    def capture_decodes(self, max_running: int) -> None:
        """Capture decode steps as CUDA graphs, where cache and model allow it; otherwise steps run as they are."""
        if not self.cache.capturable or self.length_scaling is not None:
            return
        try:
            self._graphs = DecodeGraphs(self._model, self.cache, layers=self._shape.layers, max_running=max_running)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            torch.cuda.synchronize(self.device)
            logger.warning("no CUDA graphs for this model: %s", str(error).splitlines()[0])

    def compile(self, calls: list[LayerCall]) -> bool:
        """Compute the layers by one compiled call a step from now on; False where that cannot be. calls: of the model's attention."""
        self._compiled = compile_forward(self._model, self.cache, self._shape, calls)
        return self._compiled is not None

    @property
    def length_scaling(self) -> LengthScaling | None:
        """Of the model's rotary angles; None: they depend on nothing but the position."""
        return self._angles.scaling

    @property
    def is_invariant(self) -> bool:
        """Whether not a bit of a row's logits depends on what is computed beside it."""
        return self._compiled is not None and self._compiled.is_invariant

    def interpret(self) -> None:
        """Compute the layers by the model's modules again."""
        self._compiled = None

    def execute(self, step: list[ScheduledSequence]) -> StepLogits:
        """Compute a step. On any error the step's sequences have undefined contents in the cache."""
        if self._graphs is not None and all(_is_plain_decode(scheduled) for scheduled in step):
            return StepLogits([scheduled.seq for scheduled in step], self._graphs.run(step).float(), [], [])
        attention: StepAttention | None = None
        segments: list[Segment] = []
        if self._compiled is not None:
            starts = self._compiled.cache.begin_rows(step)
        else:
            starts = [0] * len(step)
            step, attention = self.cache.begin_step(step)
        tokens: list[int] = []
        positions: list[int] = []
        lengths: list[int] = []
        wanted: list[int] = []
        sampled: list[Sequence] = []
        scored: list[tuple[Sequence, int]] = []
        embedded: list[tuple[Sequence, slice]] = []
        for scheduled, cache_row in zip(step, starts, strict=True):
            seq, start, stop = scheduled.seq, scheduled.seq.computed, scheduled.seq.computed + scheduled.count
            first_row = len(tokens)
            tokens += seq.tokens[start:stop]
            positions += range(start, stop)
            if self.length_scaling is not None:
                lengths += (max(seq.angle_len, position + 1) for position in range(start, stop))
            segments.append(Segment(first_row, scheduled.count, start, cache_row))
            if seq.score_prompt and start < seq.prompt_len:
                scored.append((seq, scheduled.count))
                wanted += range(first_row, first_row + scheduled.count)
            if seq.pooling is not None:
                embedded.append((seq, slice(first_row, first_row + scheduled.count)))
        first_sampled = len(wanted)
        last_row = -1
        for scheduled in step:
            last_row += scheduled.count
            if scheduled.sample and scheduled.seq.pooling is None:
                drawn = 1 + scheduled.seq.draft_len
                sampled += [scheduled.seq] * drawn
                wanted += range(last_row - drawn + 1, last_row + 1)
        if self._compiled is None:
            # Without a sampled row one is computed all the same: a model call needs at least one.
            wanted += [last_row] * (padded_rows(max(len(wanted), 1)) - len(wanted))
        with self._angles.of(lengths):
            if self._compiled is not None:
                logits, states = self._compiled(tokens, positions, wanted, segments, all_hidden=bool(embedded))
            else:
                assert attention is not None
                logits, states = self._interpreted(tokens, positions, wanted, attention, bool(embedded))
        prompts: list[tuple[Sequence, torch.Tensor]] = []
        first_row = 0
        for seq, count in scored:
            prompts.append((seq, logits[first_row : first_row + count]))
            first_row += count
        hidden = [(seq, states[rows]) for seq, rows in embedded]
        return StepLogits(sampled, logits[first_sampled : first_sampled + len(sampled)], prompts, hidden)

    def _interpreted(
        self, tokens: list[int], positions: list[int], wanted: list[int], attention: StepAttention, embeds: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By the model's modules: logits of the wanted rows, and the last hidden states of all, nothing where `embeds` is False."""
        padding = [0] * (padded_rows(len(tokens)) - len(tokens))
        with last_hidden_states(self._model) if embeds else contextlib.nullcontext([]) as states:
            logits = forward(
                self._model, self._tensor(tokens + padding), self._tensor(positions + padding), self._tensor(wanted), attention
            ).float()
        if attention.layers_seen != self._shape.layers:
            raise ModelLoadError(f"{attention.layers_seen} of {self._shape.layers} attention layers used the engine's KV cache")
        return logits, states[0][0] if states else logits[:0]

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self.device, non_blocking=True)


def _is_plain_decode(scheduled: ScheduledSequence) -> bool:
    seq = scheduled.seq
    return scheduled.count == 1 and scheduled.sample and not seq.score_prompt and seq.pooling is None


def current_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes a GPU the current one of this thread: kernels and graphs that are not told a device use that. Nothing on a CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def padded_rows(rows: int) -> int:
    """Rows of a forward pass that has `rows` of its own: few distinct numbers, since kernels are compiled, and kept, for each."""
    step = 1 if rows <= 32 else 8 if rows <= 128 else 32
    return -(-rows // step) * step
