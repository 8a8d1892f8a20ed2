"""What a model's attention needs of the engine, and whether the model computes through it what it computes by itself."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from mm_gateway.core import GenerationConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.engine.forward.attention_hook import AttentionProbe, forward, take_over
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.memory_errors import is_out_of_memory
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence


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
