"""Takes a transformers model's attention over: inside a step of the engine it goes to our KV cache, elsewhere to torch's own.

Uses the library's public hook, `AttentionInterface`
(https://huggingface.co/docs/transformers/attention_interface), so it fits every model class that has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.kv_cache.cache import AttentionShape, StepAttention

IMPLEMENTATION = "mm_gateway"

# Arguments that some attentions pass and that leave the result as it is.
_HARMLESS = {
    "position_ids",
    "cache_position",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "use_cache",
    "is_causal",
    "position_embeddings",
}


def take_over(model: PreTrainedModel) -> None:
    """Make the model's layers call `_attention`; the registry of transformers is global, the entry always the same."""
    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
    model.set_attn_implementation(IMPLEMENTATION)


def forward(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, attention: StepAttention
) -> torch.Tensor:
    """One packed forward pass.

    Args:
        input_ids, positions: [tokens] int64, all sequences of the step one after the other.
        rows: [sampled] int64, the tokens whose logits are wanted.

    Returns:
        Logits [sampled, vocabulary], in the model's dtype.
    """
    # A four-dimensional mask is taken as it is, so none is built; ours is a placeholder that the attention ignores.
    placeholder = input_ids.new_empty((1, 1, 1, 1), dtype=torch.bool)
    output = model(
        input_ids=input_ids[None],
        position_ids=positions[None],
        attention_mask=placeholder,
        use_cache=False,
        logits_to_keep=rows,
        step_attention=attention,
    )
    return output.logits[0]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    step_attention: StepAttention | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if step_attention is None and softcap is not None:
        return _soft_capped(query, key, value, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling, softcap), None
    if step_attention is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    unknown = [name for name, given in kwargs.items() if given is not None and name not in _HARMLESS]
    if unknown:
        raise ModelLoadError(f"This model's attention uses {', '.join(unknown)}, which the engine does not implement")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None:
        if not isinstance(step_attention, AttentionProbe):
            raise ModelLoadError(
                "This model's attention caps its scores (softcap), which is computed only on a CPU, by kernels that need a C++ compiler "
                "and `engine: {compiled_forward: true}`"
            )
        step_attention.softcaps[module.layer_idx] = softcap  # type: ignore[index]
    # The values of latent attention (DeepSeek) are narrower than its keys; the cache has one width for both.
    width, missing = value.shape[-1], max(0, key.shape[-1] - value.shape[-1])
    if missing:
        value = pad(value, (0, missing))
    found = step_attention(module.layer_idx, query, key, value, scale, sliding_window)  # type: ignore[arg-type]
    return found[..., :width] if missing else found, None


def _soft_capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float, softcap: float
) -> torch.Tensor:
    """The model's own attention where scores are capped, which torch's has not got. mask: True where it attends, None: causal."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * scaling / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(scores.shape[-1] - scores.shape[-2])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """What a layer's attention is called with.

    Attributes:
        scaling: factor on the scores. window: as for `StepAttention`. softcap: scores become softcap * tanh(score / softcap); None: not.
    """

    scaling: float
    window: int | None
    softcap: float | None = None


class AttentionProbe:
    """A StepAttention over one sequence without a cache that notes what the layers pass.

    Attributes:
        softcaps: of layers whose scores are capped.
    """

    def __init__(self) -> None:
        self.layers_seen = 0
        self.softcaps: dict[int, float] = {}
        self._shapes: dict[int, tuple[int, int, int]] = {}
        self._calls: dict[int, LayerCall] = {}

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        self.layers_seen += 1
        if key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            raise ModelLoadError("This model's keys, values and queries differ in shape, which the engine's KV cache cannot hold")
        self._shapes[layer] = (query.shape[1], key.shape[1], key.shape[3])
        self._calls[layer] = LayerCall(scaling, window, self.softcaps.get(layer))
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling).transpose(1, 2)

    def shape(self) -> AttentionShape:
        """What all layers have in common.

        Raises:
            ModelLoadError: layers differ, share caches, or have no attention that could be taken over.
        """
        layers = len(self._shapes)
        if not layers:
            raise ModelLoadError("This model has no attention that the engine can take over (transformers' AttentionInterface)")
        if sorted(self._shapes) != list(range(layers)) or layers != self.layers_seen or len(set(self._shapes.values())) > 1:
            raise ModelLoadError("This model's layers differ in their attention, which the engine's KV cache cannot hold")
        heads, kv_heads, head_dim = self._shapes[0]
        return AttentionShape(layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim)

    def calls(self) -> list[LayerCall]:
        """By layer."""
        return [self._calls[layer] for layer in sorted(self._calls)]
