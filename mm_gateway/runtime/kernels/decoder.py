"""The layers of a decoder, as native/decoder.h computes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

from mm_gateway.runtime.kernels.block_linear import PANEL, BlockLinear
from mm_gateway.runtime.kernels.decoder_structs import (
    DecoderStruct,
    LayerStruct,
    MixtureStruct,
    NormStruct,
    ProjectionStruct,
)
from mm_gateway.runtime.kernels.library import library

# Names of transformers -> `enum Activation` of native/float_kernels.h.
ACTIVATIONS = {"silu": 0, "swish": 0, "gelu_pytorch_tanh": 1, "gelu_new": 1, "gelu_fast": 1, "gelu": 2, "relu": 3}
MOST_GROUP = 96
"""Query heads that share a key head: MOST_QUERIES of native/float_kernels.h."""
MOST_HEAD_DIM = 256


class Cells(IntEnum):
    """How a cache holds keys and values: `enum Cells` of native/float_kernels.h. Its names are those of `kv_cache_dtype`."""

    FP32 = 0
    FP16 = 1
    INT8 = 2

    def head_bytes(self, head_dim: int) -> int:
        """Of one head of keys, or of values; bytes have a scale for each 32."""
        match self:
            case Cells.FP32:
                return 4 * head_dim
            case Cells.FP16:
                return 2 * head_dim
            case Cells.INT8:
                return head_dim + -(-head_dim // 32) * 4


class NormKind(IntEnum):
    """`enum NormKind` of native/float_kernels.h: by the root of the mean square, or of what is left when the mean is taken off."""

    RMS = 1
    LAYER = 2


@dataclass(frozen=True)
class Norm:
    """weight: [width], of the numbers that are normalized together. bias: [width] or None, LAYER only."""

    kind: NormKind
    weight: torch.Tensor
    epsilon: float
    bias: torch.Tensor | None = None


Projection = AbstractSequence[BlockLinear]
"""Layers that read the same input; their outputs stand one after the other. One, or up to three where they differ in kind."""


@dataclass(frozen=True)
class MixtureWeights:
    """Feed-forwards of which each row takes those that the router scores highest.

    Attributes:
        router: fp32, an output for each expert. gate_up, down: of each expert, all of one shape. chosen: experts of a row.
        normalized: the weights of a row's experts add up to one. shared_gate: one output, whose sigmoid is the weight of the layer's own
            feed-forward; None where it has none.
    """

    router: BlockLinear
    gate_up: AbstractSequence[BlockLinear]
    down: AbstractSequence[BlockLinear]
    chosen: int
    normalized: bool
    shared_gate: BlockLinear | None = None


@dataclass(frozen=True)
class LayerWeights:
    """What one layer is made of. Norms that a family has not got are None.

    Attributes:
        qkv, gate_up: of queries, keys and values, and of gate and up, or up alone. gate_up, down: empty where a mixture is all of the
            feed-forward. query_norm, key_norm: of a head, or of all heads of a row.
        window: positions that a row sees, itself included; None: all before it. rotary: which of the step's tables; None: nothing is
            rotated. scale: of scores; cap: scores become cap * tanh(score / cap).
    """

    qkv: Projection
    output: Projection
    gate_up: Projection
    down: Projection
    scale: float
    attention_norm: Norm | None = None
    feed_forward_norm: Norm | None = None
    after_attention_norm: Norm | None = None
    after_feed_forward_norm: Norm | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    window: int | None = None
    rotary: int | None = 0
    cap: float | None = None
    mixture: MixtureWeights | None = None

    @property
    def computable(self) -> bool:
        """Whether the kernels can: they work in panels of 16 numbers."""
        widths = [layer.inputs for layer in self.down]
        if self.mixture is not None:
            widths += [layer.inputs for layer in self.mixture.down]
            shapes = {(layer.outputs, layer.inputs) for layer in self.mixture.gate_up}
            if len(shapes) > 1 or len(set(widths[len(self.down) :])) > 1 or not 0 < self.mixture.chosen <= len(self.mixture.down):
                return False
        return all(width % PANEL == 0 for width in widths)

    @property
    def norms_of_rows(self) -> tuple[Norm | None, ...]:
        """In the order of native/decoder.h."""
        return self.attention_norm, self.feed_forward_norm, self.after_attention_norm, self.after_feed_forward_norm

    def fits(self, shape: DecoderShape) -> bool:
        """Whether its norms are of the widths that they are taken over; queries and keys are normalized where they stand together."""
        of_heads = ((self.query_norm, shape.heads), (self.key_norm, shape.kv_heads))
        return all(norm is None or norm.weight.shape == (shape.hidden,) for norm in self.norms_of_rows) and all(
            norm is None or (not shape.grouped and norm.weight.shape in ((shape.head_dim,), (heads * shape.head_dim,)))
            for norm, heads in of_heads
        )


@dataclass(frozen=True)
class DecoderShape:
    """What all layers share.

    Attributes:
        rotary_dim: of a head's numbers, those that are rotated. activation: a key of ACTIVATIONS.
        neighbours: numbers 2 i and 2 i + 1 are rotated together; else i and i + rotary_dim / 2. gated: feed-forwards have a gate.
        parallel: attention and feed-forward read the same x, each by its own norm. grouped: the projection gives for each key head its
            queries, its key and its value; else all queries, all keys, all values. factor: of what a layer adds to x.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    activation: str
    neighbours: bool = False
    gated: bool = True
    parallel: bool = False
    grouped: bool = False
    factor: float = 1.0

    @property
    def computable(self) -> bool:
        """Whether the kernels can: they work in panels of 16 numbers."""
        return (
            all(size % PANEL == 0 for size in (self.hidden, self.head_dim))
            and self.heads % self.kv_heads == 0
            and self.heads // self.kv_heads <= MOST_GROUP
            and self.head_dim <= MOST_HEAD_DIM
            and self.rotary_dim % 2 == 0
            and self.activation in ACTIVATIONS
        )


class Decoder:
    """All layers and the last norm of one model over one cache, for `Model` to compute.

    Attributes:
        address: of the `struct Decoder` of native/decoder.h.

    Args:
        cache: per layer keys and values, [positions, ...] of kv_heads * cells.head_bytes(head_dim) bytes each.

    Raises:
        RuntimeError: there are no kernels on this machine. ValueError: they cannot compute this shape.
    """

    def __init__(
        self,
        shape: DecoderShape,
        layers: AbstractSequence[LayerWeights],
        last_norm: Norm,
        cache: AbstractSequence[tuple[torch.Tensor, torch.Tensor]],
        cells: Cells = Cells.FP32,
    ) -> None:
        if library() is None:
            raise RuntimeError("no compiled kernels")
        if not shape.computable or not all(layer.computable and layer.fits(shape) for layer in layers):
            raise ValueError(f"no kernels for {shape}")
        self._kept: list[object] = [list(layers), list(cache)]  # the library reads all this by its addresses
        self._layers = (LayerStruct * len(layers))()
        for index, (layer, (keys, values)) in enumerate(zip(layers, cache, strict=True)):
            self._layers[index] = LayerStruct(
                *map(_projection, (layer.qkv, layer.output, layer.gate_up, layer.down)),
                layer.down[0].inputs if layer.down else 0,
                self._mixture(layer.mixture),
                *(self._norm(norm, shape.hidden) for norm in layer.norms_of_rows),
                self._norm(layer.query_norm),
                self._norm(layer.key_norm),
                keys.data_ptr(),
                values.data_ptr(),
                layer.window or 0,
                -1 if layer.rotary is None else layer.rotary,
                layer.scale,
                layer.cap or 0.0,
            )
        self._decoder = DecoderStruct(
            len(layers),
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.rotary_dim,
            shape.neighbours,
            ACTIVATIONS[shape.activation],
            shape.gated,
            shape.parallel,
            shape.grouped,
            shape.factor,
            cells,
            cells.head_bytes(shape.head_dim),
            self._layers,
            self._norm(last_norm),
        )
        self.address = ctypes.addressof(self._decoder)

    def _norm(self, norm: Norm | None, width: int = 0) -> NormStruct:
        """width: of the numbers that a norm that is not there leaves as they are."""
        if norm is None:
            return NormStruct(0, width)
        weight, bias = (None if part is None else part.detach().float().contiguous() for part in (norm.weight, norm.bias))
        assert weight is not None
        self._kept += [weight, bias]
        return NormStruct(norm.kind, len(weight), norm.epsilon, weight.data_ptr(), None if bias is None else bias.data_ptr())

    def _mixture(self, mixture: MixtureWeights | None) -> Any:
        if mixture is None:
            return None
        shared = None if mixture.shared_gate is None else ctypes.pointer(_projection([mixture.shared_gate]))
        gate_up, down = ((ctypes.c_void_p * len(each))(*(layer.address for layer in each)) for each in (mixture.gate_up, mixture.down))
        made = MixtureStruct(
            len(down),
            mixture.chosen,
            mixture.down[0].inputs,
            mixture.normalized,
            mixture.router.address,
            ctypes.cast(gate_up, ctypes.POINTER(ctypes.c_void_p)),
            ctypes.cast(down, ctypes.POINTER(ctypes.c_void_p)),
            shared,
        )
        self._kept += [gate_up, down, shared, made]
        return ctypes.pointer(made)


def _projection(layers: Projection) -> ProjectionStruct:
    return ProjectionStruct(len(layers), (ctypes.c_void_p * 3)(*(layer.address for layer in layers)))
