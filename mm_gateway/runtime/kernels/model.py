"""A step of a whole model as one compiled call, from its tokens to logits: native/model.cpp.

One call, since other threads run Python only while the library computes: each return to Python in the middle of a step waits for them.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import Decoder
from mm_gateway.runtime.kernels.decoder_structs import ModelStepStruct, ModelStruct, SegmentStruct
from mm_gateway.runtime.kernels.library import library


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [first_row, first_row + rows): positions from `start` on of the sequence whose position 0 is at `cache_row` of the cache."""

    first_row: int
    rows: int
    start: int
    cache_row: int


@dataclass(frozen=True, slots=True)
class Angles:
    """Of a step's rows.

    Attributes:
        tables: up to two of cosines and sines, [n, rotary_dim / 2] fp32 each. places: of each row, where in them it is.
    """

    tables: AbstractSequence[tuple[torch.Tensor, torch.Tensor]]
    places: AbstractSequence[int]


class Model:
    """Called by one thread at a time.

    Args:
        embeddings: the layer whose outputs' weights are the embeddings; None: they are given. factor: of those that are looked up.
        head: the output layer; None: hidden states are all that is computed.

    Raises:
        RuntimeError: there are no kernels on this machine.
    """

    def __init__(self, decoder: Decoder, *, embeddings: BlockLinear | None, factor: float = 1.0, head: BlockLinear | None) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled kernels")
        self._run, self._workspace_bytes = loaded.model_run, loaded.model_workspace
        self._decoder, self._embeddings, self._head = decoder, embeddings, head  # the library reads them by their addresses
        addresses = (None if layer is None else layer.address for layer in (embeddings, head))
        self._model = ModelStruct(decoder.address, next(addresses), factor, next(addresses))
        self._workspace = torch.empty(0, dtype=torch.uint8)

    @property
    def looks_up(self) -> bool:
        """Whether embeddings are looked up; else they have to be given."""
        return self._embeddings is not None

    def __call__(
        self,
        tokens: AbstractSequence[int],
        angles: Angles,
        segments: AbstractSequence[Segment],
        wanted: AbstractSequence[int],
        x: torch.Tensor | None = None,
        *,
        all_hidden: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Write the step's keys and values into the cache, and compute its last hidden states and logits.

        Args:
            tokens: of each row. segments: cover the rows, each of another sequence. wanted: rows whose logits are.
            x: the embeddings, where they are not looked up: [rows, hidden] fp32, contiguous; becomes the hidden states.
            all_hidden: the hidden states of all rows are wanted too.

        Returns:
            Hidden states [rows, hidden], of rows that are wanted, and logits [wanted, outputs], None where there is no output layer; fp32.

        Raises:
            IndexError: there is no embedding of such a token.
        """
        rows = len(tokens)
        if x is None:
            assert self._embeddings is not None
            if min(tokens) < 0 or max(tokens) >= self._embeddings.outputs:
                raise IndexError("index out of range")
            x = torch.empty(rows, self._embeddings.inputs, dtype=torch.float32)
        logits = None if self._head is None else torch.empty(len(wanted), self._head.outputs, dtype=torch.float32)
        needed = self._workspace_bytes(ctypes.byref(self._model), rows, len(wanted))
        if self._workspace.nbytes < needed:
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        numbers = [array("q", each) for each in (tokens, angles.places, wanted)]  # kept until the call is over
        token_ids, places, wanted_rows = (each.buffer_info()[0] for each in numbers)
        step = ModelStepStruct(
            rows,
            token_ids,
            places,
            (ctypes.c_void_p * 2)(*(cosines.data_ptr() for cosines, _ in angles.tables)),
            (ctypes.c_void_p * 2)(*(sines.data_ptr() for _, sines in angles.tables)),
            x.data_ptr(),
            len(segments),
            (SegmentStruct * len(segments))(*((s.first_row, s.rows, s.start, s.cache_row) for s in segments)),
            len(wanted),
            wanted_rows,
            all_hidden,
            None if logits is None else logits.data_ptr(),
            self._workspace.data_ptr(),
        )
        self._run(ctypes.byref(self._model), ctypes.byref(step), torch.get_num_threads())
        return x, logits
