"""Cosines and sines of rotary positions, as the model's own module computes them."""

from __future__ import annotations

from typing import Any

import torch

# Positions that are computed at once, when the first of them is asked for.
_CHUNK = 4096
# Kinds of scaling whose angles depend on nothing but the position. Those of others are looked up anew: see `SequenceAngles`.
_FIXED = {"default", "linear", "llama3", "yarn"}


class RotaryTables:
    """By position, [half of the rotated dimensions] each.

    Args:
        module: a rotary embedding of transformers, called with (x, position_ids). kind: of layers, where it has several kinds.

    Attributes:
        is_fixed: angles depend on nothing but the position.
    """

    def __init__(self, module: Any, kind: str | None = None) -> None:
        self._module = module
        self._kind = () if kind is None else (kind,)
        self.is_fixed = (module.rope_type if kind is None else module.rope_type[kind]) in _FIXED
        self._cosines, self._sines = self._compute(torch.arange(1 if not self.is_fixed else _CHUNK))

    @property
    def width(self) -> int:
        """Numbers of a head that are rotated."""
        return 2 * self._cosines.shape[1]

    def whole(self, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of position 0 to `last` at least, [positions, half] fp32. Where they are fixed."""
        if last >= len(self._cosines):
            more = self._compute(torch.arange(len(self._cosines), (last // _CHUNK + 1) * _CHUNK))
            self._cosines, self._sines = torch.cat([self._cosines, more[0]]), torch.cat([self._sines, more[1]])
        return self._cosines, self._sines

    def of(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions: [rows] int64 -> cosines and sines, [rows, half] fp32."""
        if not self.is_fixed:
            return self._compute(positions)
        cosines, sines = self.whole(int(positions.max()))
        return cosines[positions], sines[positions]

    def _compute(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tables: tuple[torch.Tensor, torch.Tensor] = self._module(torch.zeros((), dtype=torch.float32), positions[None], *self._kind)
        return _once(tables[0][0].float()), _once(tables[1][0].float())


def _once(table: torch.Tensor) -> torch.Tensor:
    """A table has each angle twice, of both numbers that are turned by it: in halves or, for Cohere, beside each other."""
    for first, second in (table.chunk(2, dim=-1), (table[:, ::2], table[:, 1::2])):
        if torch.equal(first, second):
            return first.contiguous()
    raise ValueError("its rotary positions have angles of their own for each number")
