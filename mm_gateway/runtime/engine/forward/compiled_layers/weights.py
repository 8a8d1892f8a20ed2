"""From a layer's modules to what the compiled call computes with. TypeError, AttributeError: something of it is not known here."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mm_gateway.runtime.checkpoints.packed_experts import PackedExperts
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.checkpoints.packing import JoinedMember
from mm_gateway.runtime.engine.forward.attention_hook import LayerCall
from mm_gateway.runtime.engine.forward.compiled_layers.families import LayerFamily, is_of_transformers
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import LayerWeights, MixtureWeights, Norm, NormKind


def layer_weights(layer: Any, family: LayerFamily, call: LayerCall, rotary: int) -> LayerWeights:
    """call: what the layer's attention is called with. rotary: which tables it takes, where it rotates."""
    attention = getattr(layer, family.attention)
    if getattr(attention.config, "clip_qkv", None) is not None:  # OLMo
        raise TypeError("queries, keys and values that are clipped")
    gate_up, down, mixture = _feed_forward(getattr(layer, family.feed_forward), family)

    def norm(module: Any, name: str | None) -> Norm | None:
        return None if name is None else norm_of(getattr(module, name))

    return LayerWeights(
        qkv=_projection(attention, *family.qkv),
        output=_projection(attention, family.output),
        gate_up=gate_up,
        down=down,
        mixture=mixture,
        attention_norm=norm(layer, family.attention_norm),
        feed_forward_norm=norm(layer, family.feed_forward_norm),
        after_attention_norm=norm(layer, family.after_attention_norm),
        after_feed_forward_norm=norm(layer, family.after_feed_forward_norm),
        query_norm=norm(attention, family.query_norm) if hasattr(attention, family.query_norm) else None,
        key_norm=norm(attention, family.key_norm) if hasattr(attention, family.key_norm) else None,
        rotary=rotary if family.rotated else None,
        window=call.window,
        scale=call.scaling,
        cap=call.softcap,
    )


def norm_of(module: Any) -> Norm:
    """Any of transformers' norms as what it computes."""
    name = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        weight = torch.ones(module.normalized_shape) if module.weight is None else module.weight  # type: ignore[redundant-expr]
        return Norm(NormKind.LAYER, weight, module.eps, module.bias)
    if name in ("CohereLayerNorm", "Cohere2LayerNorm"):
        return Norm(NormKind.LAYER, module.weight, module.variance_epsilon)
    if name == "OlmoLayerNorm":
        return Norm(NormKind.LAYER, torch.ones(module.normalized_shape), 1e-5)
    if not name.endswith("RMSNorm"):
        raise TypeError(f"{name} is a norm of another kind")
    if name.startswith("Gemma"):  # stored as what is added to one
        return Norm(NormKind.RMS, module.weight.float() + 1, module.eps)
    return Norm(NormKind.RMS, module.weight, module.variance_epsilon)


def _feed_forward(module: Any, family: LayerFamily) -> tuple[list[BlockLinear], list[BlockLinear], MixtureWeights | None]:
    """A layer's own gate and up, its down, and its experts."""
    if not hasattr(module, "experts"):
        return _projection(module, *family.gate_up), _projection(module, family.down), None
    experts, router = module.experts, module.gate
    if not isinstance(experts, PackedExperts) or not is_of_transformers(module):
        raise TypeError(f"{type(experts).__name__} are experts of another kind")
    shared = getattr(module, "shared_expert", None)
    mixture = MixtureWeights(
        BlockLinear(router.weight.detach().float(), None),
        *([_kernel("an expert", layer) for layer in layers] for layers in (experts.gate_up, experts.down)),
        chosen=router.top_k,
        # Mixtral's router has no word for it, and does.
        normalized=getattr(router, "norm_topk_prob", True),
        shared_gate=None if shared is None else _kernel("shared_expert_gate", module.shared_expert_gate),
    )
    gate_up, down, _ = ([], [], None) if shared is None else _feed_forward(shared, family)
    return gate_up, down, mixture


def _kernel(name: str, layer: object) -> BlockLinear:
    if not isinstance(layer, KernelLinear):
        raise TypeError(f"{name} is computed by {type(layer).__name__}")
    return layer.kernel


def _projection(module: Any, *names: str) -> list[BlockLinear]:
    """The kernels of these layers of a module, whose outputs stand one after the other in that order."""
    found: list[BlockLinear] = []
    expected = 0  # members of a joined layer that are still to come
    for name in names:
        layer: Any = getattr(module, name)
        if isinstance(layer, JoinedMember):
            if layer.index == 0:
                expected, layer = layer.group.count, layer.group.linear
            elif layer.index != layer.group.count - expected:
                raise TypeError(f"{name} is joined in another order")
            expected -= 1
        if isinstance(layer, JoinedMember):
            continue
        found.append(_kernel(name, layer))
    return found
