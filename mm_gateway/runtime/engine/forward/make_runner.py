"""Makes the runner of a model: with the best cache and the fastest forward pass that compute what the model does."""

from __future__ import annotations

import logging

from transformers import PreTrainedModel

from mm_gateway.configuration.model_config import KVCacheDtype
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.engine.forward.sequence_angles import SequenceAngles
from mm_gateway.runtime.engine.forward.verification import probe, verify
from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.kv_cache.block_cache import BLOCK_SIZE
from mm_gateway.runtime.kv_cache.choosing import Layout, make_kv_cache

logger = logging.getLogger(__name__)


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


def make_draft_runner(draft: LoadedModel, runner: ModelRunner, settings: EngineSettings, *, context_length: int, name: str) -> ModelRunner:
    """The runner of a model that guesses for that of another one, with room for as many tokens as its cache has.

    Args:
        runner: of the model that checks the guesses. context_length: of its sequences. name: its name, for errors.

    Raises:
        ModelLoadError: guesses could change its texts, or the draft model computes what cannot be computed for guesses; else as for
            `make_runner`.
        OutOfMemoryError: as for `make_runner`.
    """
    if not runner.is_invariant:
        raise ModelLoadError(
            f"{name}: speculative_model is for models whose layers are computed by one compiled call on a CPU, with rotary angles "
            "that do not depend on the length; others could say something else with guesses. Leave it out"
        )
    found = make_runner(
        draft.model,
        settings,
        context_length=min(context_length, draft.context_length),
        kv_cache_tokens=runner.cache.allocator.capacity_tokens,
        kv_cache_dtype=draft.config.kv_cache_dtype,
        tolerance=draft.rounding,
    )
    if found.length_scaling is not None:
        raise ModelLoadError(
            f"{name}: speculative_model: the rotary angles of {draft.config.model_name} depend on the length, which is not "
            "computed for guesses. Choose another model"
        )
    return found


_ROUNDING = {Cells.FP32: 0.0, Cells.FP16: 0.02, Cells.INT8: 0.25}
"""What a cache explains of a difference, in standard deviations of the logits."""


def _cells(model: PreTrainedModel, dtype: KVCacheDtype) -> list[Cells]:
    """What to keep keys and values in, the first that the model can."""
    if dtype != "auto":
        return [Cells[dtype.upper()]]
    exact = all(layer.bits == 32 for layer in model.modules() if isinstance(layer, KernelLinear))
    return [Cells.FP32] if exact else [Cells.FP16, Cells.FP32]
