"""The structures of native/decoder.h, native/float_kernels.h and native/model.cpp, field by field."""

from __future__ import annotations

import ctypes


class NormStruct(ctypes.Structure):
    """`struct Norm`."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("epsilon", ctypes.c_double),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class ProjectionStruct(ctypes.Structure):
    """`struct Projection`."""

    _fields_ = (("count", ctypes.c_int64), ("layers", ctypes.c_void_p * 3))


class MixtureStruct(ctypes.Structure):
    """`struct Mixture`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("experts", "chosen", "inner", "normalized")),
        ("router", ctypes.c_void_p),
        ("gate_up", ctypes.POINTER(ctypes.c_void_p)),
        ("down", ctypes.POINTER(ctypes.c_void_p)),
        ("shared_gate", ctypes.POINTER(ProjectionStruct)),
    )


class LayerStruct(ctypes.Structure):
    """`struct DecoderLayer`."""

    _fields_ = (
        *((name, ProjectionStruct) for name in ("qkv", "output", "gate_up", "down")),
        ("feed_forward", ctypes.c_int64),
        ("mixture", ctypes.POINTER(MixtureStruct)),
        *((name, NormStruct) for name in ("attention_norm", "feed_forward_norm", "after_attention_norm", "after_feed_forward_norm")),
        *((name, NormStruct) for name in ("query_norm", "key_norm")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("window", ctypes.c_int64),
        ("rotary", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("cap", ctypes.c_double),
    )


class DecoderStruct(ctypes.Structure):
    """`struct Decoder`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "rotary_dim")),
        *((name, ctypes.c_int64) for name in ("pairs", "activation", "gated", "parallel", "grouped")),
        ("factor", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("cells", "head_bytes")),
        ("layer", ctypes.POINTER(LayerStruct)),
        ("last_norm", NormStruct),
    )


class SegmentStruct(ctypes.Structure):
    """`struct Segment`."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("first_row", "rows", "start", "cache_row"))


class ModelStruct(ctypes.Structure):
    """`struct Model` of native/model.cpp."""

    _fields_ = (
        ("decoder", ctypes.c_void_p),
        ("embeddings", ctypes.c_void_p),
        ("factor", ctypes.c_double),
        ("head", ctypes.c_void_p),
    )


class ModelStepStruct(ctypes.Structure):
    """`struct ModelStep` of native/model.cpp."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("tokens", ctypes.c_void_p),
        ("angles", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p * 2),
        ("sines", ctypes.c_void_p * 2),
        ("x", ctypes.c_void_p),
        ("segments", ctypes.c_int64),
        ("segment", ctypes.POINTER(SegmentStruct)),
        ("wanted", ctypes.c_int64),
        ("wanted_row", ctypes.c_void_p),
        ("all_hidden", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
    )
