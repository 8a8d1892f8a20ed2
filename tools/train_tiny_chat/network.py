"""The Llama network for training: the same computation as transformers' LlamaForCausalLM, lean enough for a CPU; weights have its names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST_MASKED = 256
"""Up to this length attention is computed with the whole matrix of scores, and rows may hold several documents."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 704
    context: int = 2048
    rope_theta: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        hidden, feed_forward = shape.hidden, shape.feed_forward
        self.input_layernorm = nn.RMSNorm(hidden, eps=shape.epsilon)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=shape.epsilon)
        self.self_attn = nn.ModuleDict({name: nn.Linear(hidden, hidden, bias=False) for name in ("q_proj", "k_proj", "v_proj", "o_proj")})
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(hidden, feed_forward, bias=False),
                "up_proj": nn.Linear(hidden, feed_forward, bias=False),
                "down_proj": nn.Linear(feed_forward, hidden, bias=False),
            }
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """x: [rows, length, hidden]; cos, sin: [rows, 1, length, head size]; mask: [rows, 1, length, length], True where seen."""
        rows, length, hidden = x.shape
        y = self.input_layernorm(x)
        q, k, v = (
            self.self_attn[name](y).view(rows, length, self.shape.heads, self.shape.head_size).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if mask is None:
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = torch.matmul(q, k.transpose(-1, -2)) * self.shape.head_size**-0.5
            seen = torch.matmul(F.softmax(scores.masked_fill(~mask, -1e4), -1), v)
        x = x + self.self_attn["o_proj"](seen.transpose(1, 2).reshape(rows, length, hidden))
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Network(nn.Module):
    """Token ids -> hidden states before the head, which is the embedding itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                depth = (2 * shape.layers) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * depth)
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_size, 2).float() / shape.head_size)
        angles = torch.outer(torch.arange(shape.context).float(), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        """ids, positions (within the document), documents (a number each): [rows, length]. Returns [rows, length, hidden]."""
        length = ids.shape[1]
        mask = None
        if length <= LONGEST_MASKED:
            causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
            mask = (causal & (documents[:, :, None] == documents[:, None, :]))[:, None]
        x = self.embed_tokens(ids)
        cos, sin = (table[positions][:, None].to(x.dtype) for table in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, other = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-other, one), dim=-1) * sin
