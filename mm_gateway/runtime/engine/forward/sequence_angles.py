"""Gives every sequence of a step the rotary angles of its own length, where transformers gives all those of the longest position.

A step is one call for many sequences, and for parts of prompts: a chat beside a longer one, or the first part of a long prompt, would get
other angles than `generate` gives it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.scheduling.length_scaling import LengthScaling

_SWITCHES = {"longrope": True, "dynamic": False}
"""transformers' kinds of scaling by length -> `LengthScaling.switches`."""


class SequenceAngles:
    """Of one model. Its rotary modules compute as always until lengths are told.

    Attributes:
        scaling: None: its angles depend on nothing but the position, and nothing is changed.

    Raises:
        ModelLoadError: it scales in several ways at once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._keys: list[int] = []
        found = {
            (module, kind): scaling
            for module in model.modules()
            for kind, name in _kinds(module)
            if (scaling := _scaling_of(module, kind, name)) is not None
        }
        if len(set(found.values())) > 1:
            raise ModelLoadError("The engine cannot drive a model whose layers scale rotary positions by different lengths")
        self.scaling = next(iter(found.values()), None)
        for module in {module for module, _ in found}:
            self._take_over(module)

    @contextlib.contextmanager
    def of(self, lengths: list[int]) -> Iterator[None]:
        """lengths: of each row's sequence, for the calls within."""
        if self.scaling is None:
            yield
            return
        self._keys = [self.scaling.as_if(length) for length in lengths]
        try:
            yield
        finally:
            self._keys = []

    def _take_over(self, module: Any) -> None:
        compute, scaling = module.forward, self.scaling
        assert scaling is not None

        def forward(x: torch.Tensor, position_ids: torch.Tensor, *kind: str, **named: str) -> tuple[torch.Tensor, torch.Tensor]:
            if not self._keys:
                return compute(x, position_ids, *kind, **named)
            # Rows that pad a step come last; nobody reads them.
            keys = torch.tensor(self._keys + [scaling.original] * (position_ids.shape[1] - len(self._keys)))
            tables: list[torch.Tensor] = []
            for key in keys.unique().tolist():
                rows = (keys == key).nonzero()[:, 0].to(position_ids.device)
                # The module chooses by the largest position, so that of the sequence's end is put to the others.
                positions = torch.cat([position_ids[:, rows], position_ids.new_full((1, 1), key - 1)], dim=1)
                if not scaling.switches:
                    _reset(module, *kind, *named.values())
                part = compute(x, positions, *kind, **named)
                if not tables:
                    tables = [table.new_empty(1, len(keys), table.shape[-1]) for table in part]
                for table, found in zip(tables, part, strict=True):
                    table[:, rows] = found[:, :-1]
            return tables[0], tables[1]

        module.forward = forward


def _kinds(module: Any) -> Iterator[tuple[str | None, str]]:
    """(kind of layers, or None where there is one for all; name of its scaling) of a rotary module; nothing for any other."""
    found = getattr(module, "rope_type", None)
    if isinstance(found, dict):
        yield from found.items()  # type: ignore[misc]
    elif isinstance(found, str):
        yield None, found


def _scaling_of(module: Any, kind: str | None, name: str) -> LengthScaling | None:
    if name not in _SWITCHES:
        return None
    if _SWITCHES[name]:
        parameters = module.config.rope_parameters
        return LengthScaling((parameters if kind is None else parameters[kind])["original_max_position_embeddings"], switches=True)
    return LengthScaling(module.original_max_seq_len, switches=False)


def _reset(module: Any, kind: str | None = None) -> None:
    """Angles of dynamic scaling go on growing with the longest sequence that was seen; this one is to have its own."""
    prefix = "" if kind is None else f"{kind}_"
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
    original = getattr(module, f"{prefix}original_inv_freq").to(getattr(module, f"{prefix}inv_freq").device)
    module.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
