"""Experts of a mixture for a CPU: two packed layers each, in the place of the two weights in which transformers joins them all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mm_gateway.runtime.checkpoints.packed_linear import Weights, packed_linear
from mm_gateway.runtime.kernels.blocks import Blocks

EXPERT_WEIGHTS = ("gate_up_proj", "down_proj")
"""What transformers calls them: [experts, 2 * inner, outer] and [experts, outer, inner]."""


def are_experts(module: nn.Module) -> bool:
    """Whether it is a module of experts as `PackedExperts` computes them, by what transformers' own decorator of such classes says."""
    plain = getattr(module, "has_gate", False) and getattr(module, "is_concatenated", False)
    further = ("has_bias", "is_transposed", "has_post_expert_norm")
    own = {name for name, _ in module.named_parameters(recurse=False)}
    return plain and not any(getattr(module, name, True) for name in further) and own == set(EXPERT_WEIGHTS)


class PackedExperts(nn.Module):
    """The sum over each row's experts of down(gate(gate_up(x))), weighted as the model's router says.

    A row's result does not depend on the rows beside it: its experts are added in the order of their numbers.

    Args:
        experts: transformers' module, which gives its gate and loses its weights.
        read: from one of its weights and the number of an expert to the expert's, [outputs, inputs].
    """

    def __init__(self, experts: nn.Module, weights: Weights, read: Callable[[torch.Tensor, int], torch.Tensor | Blocks]) -> None:
        super().__init__()
        self.gate_up, self.down = (_packed(experts, name, weights, read) for name in EXPERT_WEIGHTS)
        self._gate: Callable[[torch.Tensor], torch.Tensor] = experts._apply_gate  # type: ignore[assignment]

    def forward(self, x: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """x [rows, width] fp32, experts [rows, chosen] ids, weights [rows, chosen] -> [rows, width]."""
        found = torch.zeros_like(x)
        for expert in experts.unique().tolist():
            rows, places = torch.where(experts == expert)
            inner = self._gate(self.gate_up[expert](x[rows]))
            found.index_add_(0, rows, self.down[expert](inner) * weights[rows, places, None])
        return found


def _packed(experts: nn.Module, name: str, weights: Weights, read: Callable[[torch.Tensor, int], torch.Tensor | Blocks]) -> nn.ModuleList:
    weight = getattr(experts, name)
    layers = nn.ModuleList(packed_linear(read(weight, number), None, weights) for number in range(len(weight)))
    delattr(experts, name)
    return layers
