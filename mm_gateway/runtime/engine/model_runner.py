"""Runs a step's tokens through the model: builds packed inputs, owns the KV cache, returns logits; knows no sampling or text."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mm_gateway.configuration.model_config import KVCacheDtype
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.engine.attention_hook import AttentionProbe, LayerCall, forward, take_over
from mm_gateway.runtime.engine.compiled_forward import CompiledForward, compile_forward
from mm_gateway.runtime.engine.decode_graphs import DecodeGraphs
from mm_gateway.runtime.engine.hidden_states import last_hidden_states
from mm_gateway.runtime.engine.sequence_angles import SequenceAngles
from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.kernels.model import Segment
from mm_gateway.runtime.kv_cache.block_cache import BLOCK_SIZE
from mm_gateway.runtime.kv_cache.cache import AttentionShape, KVCache, StepAttention
from mm_gateway.runtime.kv_cache.choosing import Layout, make_kv_cache
from mm_gateway.runtime.memory_errors import is_out_of_memory
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
                logits, states = self._compiled(tokens, positions, wanted, segments)
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


def make_runner(
    model: PreTrainedModel,
    settings: EngineSettings,
    *,
    context_length: int,
    kv_cache_bytes: int | None = None,
    kv_cache_tokens: int | None = None,
    kv_cache_dtype: KVCacheDtype = "auto",
    flash_attention: bool = False,
    layout: Layout | None = None,
    block_size: int = BLOCK_SIZE,
    tolerance: float,
) -> ModelRunner:
    """A runner that computes what the model does, with a cache of its own. In inference mode, on the model's device.

    Args:
        context_length: tokens of one sequence. kv_cache_bytes, kv_cache_tokens, flash_attention, layout, block_size: as for
            `make_kv_cache`.
        kv_cache_dtype: as in an entry of the configuration.
        tolerance: as for `verify`.

    Raises:
        ModelLoadError: the model's attention cannot be taken over, computes something else through the cache, or cannot have a cache
            of the type that is asked for.
        OutOfMemoryError: the KV cache would not hold one short sequence.
    """
    attention = probe(model)
    shape = attention.shape()
    angles = SequenceAngles(model)
    for cells in _cells(model, kv_cache_dtype):
        cache = make_kv_cache(
            shape,
            device=model.device,
            dtype=model.dtype,
            context_length=context_length,
            settings=settings,
            budget_bytes=kv_cache_bytes,
            budget_tokens=kv_cache_tokens,
            flash_attention=flash_attention,
            layout=layout,
            block_size=block_size,
            cells=cells,
        )
        runner = ModelRunner(model, cache, shape, angles)
        if settings.compiled_forward and runner.compile(attention.calls()):
            try:
                verify(model, runner, tolerance=tolerance + _ROUNDING[cells])
            except ModelLoadError as error:
                logger.warning("not compiled with a cache of %s, so it may take longer: %s", cells.name.lower(), error)
                runner.interpret()
            else:
                return runner
        if cells is Cells.FP32:
            verify(model, runner, tolerance=tolerance)
            runner.capture_decodes(settings.max_running)
            return runner
    raise ModelLoadError(
        f"kv_cache_dtype: {kv_cache_dtype} is for models on a CPU whose layers are computed by one compiled call, which those of "
        f"{type(model).__name__} are not. Leave it `auto`"
    )


_ROUNDING = {Cells.FP32: 0.0, Cells.FP16: 0.02, Cells.INT8: 0.25}
"""What a cache explains of a difference, in standard deviations of the logits."""


def _cells(model: PreTrainedModel, dtype: KVCacheDtype) -> list[Cells]:
    """What to keep keys and values in, the first that the model can."""
    if dtype != "auto":
        return [Cells[dtype.upper()]]
    exact = all(layer.bits == 32 for layer in model.modules() if isinstance(layer, KernelLinear))
    return [Cells.FP32] if exact else [Cells.FP16, Cells.FP32]


def probe(model: PreTrainedModel) -> AttentionProbe:
    """Take the model's attention over and learn what it needs of a cache, and how it is called.

    Raises:
        ModelLoadError: its attention cannot be taken over; the message says why.
    """
    take_over(model)
    attention = AttentionProbe()
    tokens = _probe_tokens(model)
    try:
        forward(model, tokens, torch.arange(len(tokens), device=tokens.device), tokens[:1] * 0, attention)
    except ModelLoadError:
        raise
    except Exception as error:  # whatever a model class says of being called in another way than its own
        if is_out_of_memory(error):
            raise
        raise ModelLoadError(f"The engine cannot drive {type(model).__name__}: {str(error)[:300]}") from error
    return attention


def verify(model: PreTrainedModel, runner: ModelRunner, *, tolerance: float) -> None:
    """Compare a forward pass in chunks through the engine with the model's own, so that no model is served wrongly in silence.

    Where activations are rounded to 8 bits, the last place of a sum decides which of two values one takes, and the layers after it make
    much of that. How much is the model's own affair: it may differ by a few times what a change of its input in the sixth digit moves.

    Args:
        tolerance: largest difference of logits allowed in any case, in standard deviations of the logits.

    Raises:
        ModelLoadError: they differ.
    """
    tokens = _probe_tokens(model)
    expected = model(input_ids=tokens[None], use_cache=False).logits[0, -1].float()
    seq = Sequence(-1, -1, tokens.tolist(), GenerationConfig(), max_tokens=1, seed=0)
    allocator = runner.cache.allocator
    allocator.allocate(seq)
    try:
        for count in (len(tokens) - 2, 1, 1):
            result = runner.execute([ScheduledSequence(seq, count, True)])
            seq.computed += count
        differences = (result.logits[0] - expected).abs() / expected.std()
        difference, token = differences.max().item(), int(differences.argmax())
    finally:
        allocator.discard(seq)
    if not difference <= tolerance:
        tolerance = max(tolerance, 3 * _sensitivity(model, tokens, expected))
    if not difference <= tolerance:
        raise ModelLoadError(
            f"{type(model).__name__} computes other results through the engine's KV cache than by itself, so it is not served: after "
            f"{len(tokens)} tokens, given in three parts, the logit of token {token} is {result.logits[0, token]:.4g} in place of "
            f"{expected[token]:.4g}, {difference:.2g} standard deviations of the logits apart; this precision explains {tolerance:g}"
        )


def _sensitivity(model: PreTrainedModel, tokens: torch.Tensor, expected: torch.Tensor) -> float:
    """How far the model's logits move when its embeddings change by four millionths, in standard deviations: the most of eight trials."""
    embeddings: torch.nn.Module = model.get_input_embeddings()  # type: ignore[assignment]
    found = 0.0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)

        def moved(_: object, __: object, output: torch.Tensor, generator: torch.Generator = generator) -> torch.Tensor:
            noise = torch.randn(output.shape, generator=generator, dtype=torch.float32).to(output.device)
            return (output.float() * (1 + 4e-6 * noise)).to(output.dtype)

        handle = embeddings.register_forward_hook(moved)
        try:
            logits = model(input_ids=tokens[None], use_cache=False).logits[0, -1].float()
        finally:
            handle.remove()
        found = max(found, ((logits - expected).abs() / expected.std()).max().item())
    return found


def _probe_tokens(model: PreTrainedModel) -> torch.Tensor:
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    return (torch.arange(1, 9, device=model.device) * 7919) % vocabulary
