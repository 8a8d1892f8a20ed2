"""The layers of a Llama-shaped decoder as one compiled call a step: native/decoder.h says what they compute."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

from mm_gateway.runtime.kernels.block_linear import PANEL, BlockLinear
from mm_gateway.runtime.kernels.library import library

ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}
MOST_GROUP = 48
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


class _Projection(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int64), ("layers", ctypes.c_void_p * 3))


class _Mixture(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("experts", "chosen", "inner", "normalized")),
        ("router", ctypes.c_void_p),
        ("gate_up", ctypes.POINTER(ctypes.c_void_p)),
        ("down", ctypes.POINTER(ctypes.c_void_p)),
        ("shared_gate", ctypes.POINTER(_Projection)),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Projection) for name in ("qkv", "output", "gate_up", "down")),
        ("feed_forward", ctypes.c_int64),
        ("mixture", ctypes.POINTER(_Mixture)),
        *((name, ctypes.c_void_p) for name in ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")),
        *((name, ctypes.c_void_p) for name in ("after_attention_norm", "after_feed_forward_norm", "keys", "values")),
        ("window", ctypes.c_int64),
        ("rotary", ctypes.c_int64),
        ("scale", ctypes.c_double),
    )


class _Decoder(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "rotary_dim")),
        *((name, ctypes.c_int64) for name in ("activation", "cells", "head_bytes")),
        ("epsilon", ctypes.c_double),
        ("layer", ctypes.POINTER(_Layer)),
        ("last_norm", ctypes.c_void_p),
    )


class _Segment(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("first_row", "rows", "start", "cache_row"))


class _Step(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p * 2),
        ("sines", ctypes.c_void_p * 2),
        ("segments", ctypes.c_int64),
        ("segment", ctypes.POINTER(_Segment)),
        ("workspace", ctypes.c_void_p),
    )


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
    """What one layer is made of. Norms are vectors, fp32; those that a family has not got are None.

    Attributes:
        qkv, gate_up: of queries, keys and values, and of gate and up. gate_up, down: empty where a mixture is all of the feed-forward.
        window: positions that a row sees, itself included; None: all before it. rotary: which of the step's tables. scale: of scores.
    """

    qkv: Projection
    output: Projection
    gate_up: Projection
    down: Projection
    attention_norm: torch.Tensor
    feed_forward_norm: torch.Tensor
    scale: float
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    after_attention_norm: torch.Tensor | None = None
    after_feed_forward_norm: torch.Tensor | None = None
    window: int | None = None
    rotary: int = 0
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


@dataclass(frozen=True)
class DecoderShape:
    """Sizes that all layers share; `rotary_dim`: of a head's numbers, those that are rotated; activation: a key of ACTIVATIONS."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    activation: str
    epsilon: float

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


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [first_row, first_row + rows): positions from `start` on of the sequence whose position 0 is at `cache_row` of the cache."""

    first_row: int
    rows: int
    start: int
    cache_row: int


class Decoder:
    """All layers and the last norm of one model over one cache. Called by one thread at a time.

    Args:
        cache: per layer keys and values, [positions, ...] of kv_heads * cells.head_bytes(head_dim) bytes each.

    Raises:
        RuntimeError: there are no kernels on this machine. ValueError: they cannot compute this shape.
    """

    def __init__(
        self,
        shape: DecoderShape,
        layers: AbstractSequence[LayerWeights],
        last_norm: torch.Tensor,
        cache: AbstractSequence[tuple[torch.Tensor, torch.Tensor]],
        cells: Cells = Cells.FP32,
    ) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled kernels")
        if not shape.computable or not all(layer.computable for layer in layers):
            raise ValueError(f"no kernels for {shape}")
        self._run, self._workspace_bytes = loaded.decoder_run, loaded.decoder_workspace
        self._kept: list[object] = [list(layers), list(cache)]  # the library reads all this by its addresses
        self._layers = (_Layer * len(layers))()
        for index, (layer, (keys, values)) in enumerate(zip(layers, cache, strict=True)):
            self._layers[index] = _Layer(
                *map(_projection, (layer.qkv, layer.output, layer.gate_up, layer.down)),
                layer.down[0].inputs if layer.down else 0,
                self._mixture(layer.mixture),
                *map(self._norm, (layer.attention_norm, layer.feed_forward_norm, layer.query_norm, layer.key_norm)),
                *map(self._norm, (layer.after_attention_norm, layer.after_feed_forward_norm)),
                keys.data_ptr(),
                values.data_ptr(),
                layer.window or 0,
                layer.rotary,
                layer.scale,
            )
        self._decoder = _Decoder(
            len(layers),
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.rotary_dim,
            ACTIVATIONS[shape.activation],
            cells,
            cells.head_bytes(shape.head_dim),
            shape.epsilon,
            self._layers,
            self._norm(last_norm),
        )
        self._workspace = torch.empty(0, dtype=torch.uint8)

    def _norm(self, weight: torch.Tensor | None) -> int | None:
        if weight is None:
            return None
        weight = weight.detach().float().contiguous()
        self._kept.append(weight)
        return weight.data_ptr()

    def _mixture(self, mixture: MixtureWeights | None) -> Any:
        if mixture is None:
            return None
        shared = None if mixture.shared_gate is None else ctypes.pointer(_projection([mixture.shared_gate]))
        gate_up, down = ((ctypes.c_void_p * len(each))(*(layer.address for layer in each)) for each in (mixture.gate_up, mixture.down))
        made = _Mixture(
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

    def __call__(
        self, x: torch.Tensor, rotary: AbstractSequence[tuple[torch.Tensor, torch.Tensor]], segments: AbstractSequence[Segment]
    ) -> None:
        """Write the step's keys and values into the cache, and replace embeddings by last hidden states.

        Args:
            x: [rows, hidden] fp32, contiguous. rotary: one or two tables of cosines and sines, [rows, rotary_dim / 2] fp32 each.
            segments: cover the rows, each of another sequence.
        """
        rows = len(x)
        needed = self._workspace_bytes(ctypes.byref(self._decoder), rows)
        if self._workspace.nbytes < needed:
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        tables = [tuple(table.contiguous() for table in pair) for pair in rotary]
        step = _Step(
            rows,
            x.data_ptr(),
            (ctypes.c_void_p * 2)(*(cosines.data_ptr() for cosines, _ in tables)),
            (ctypes.c_void_p * 2)(*(sines.data_ptr() for _, sines in tables)),
            len(segments),
            (_Segment * len(segments))(*((s.first_row, s.rows, s.start, s.cache_row) for s in segments)),
            self._workspace.data_ptr(),
        )
        self._run(ctypes.byref(self._decoder), ctypes.byref(step), torch.get_num_threads())


def _projection(layers: Projection) -> _Projection:
    return _Projection(len(layers), (ctypes.c_void_p * 3)(*(layer.address for layer in layers)))
