"""Draws tokens from distributions, a row each, with the random numbers that each row's key stands for; knows no sequences."""

from __future__ import annotations

import torch

from mm_gateway.runtime.sampling.noise import gumbel_noise

CANDIDATES = 256
"""Top-p and min-p look at this many most probable tokens first, and at all only where these do not suffice."""

_BLOCK = 256
_FIRST_BLOCK_NAME = 2**30


def draw_free(scaled: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Of all tokens; arguments and result as for `draw_truncated`.

    In two levels, a block of tokens by its whole weight, then a token of it: a few hundred random numbers, not one a token.
    """
    rows, vocab_size = scaled.shape
    blocks = -(-vocab_size // _BLOCK)
    weights = scaled.new_zeros((rows, blocks * _BLOCK))
    weights[:, :vocab_size] = torch.exp(scaled - scaled.amax(-1, keepdim=True))
    weights = weights.view(rows, blocks, _BLOCK)
    # Numbers of their own: no token has an id as large as these.
    names = torch.arange(_FIRST_BLOCK_NAME, _FIRST_BLOCK_NAME + blocks, dtype=torch.int32, device=scaled.device)
    block = (weights.sum(-1).log_() + gumbel_noise(keys, names)).argmax(-1, keepdim=True)
    inside = weights.gather(1, block[..., None].expand(-1, 1, _BLOCK))[:, 0]
    tokens = block * _BLOCK + torch.arange(_BLOCK, device=scaled.device)
    return tokens.gather(1, (inside.log_() + gumbel_noise(keys, tokens)).argmax(-1, keepdim=True))[:, 0]


def draw_truncated(
    scaled: torch.Tensor,
    keys: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    candidates: int = CANDIDATES,
) -> torch.Tensor:
    """Of what top-k, top-p (of what top-k left) and min-p keep.

    Args:
        scaled: [n, vocabulary] fp32, logits divided by the temperature. keys: as for `gumbel_noise`.
        top_k: [n], 0 for all. top_p: [n], 1 for all. min_p: [n], 0 for all. candidates: most probable tokens to look at first.

    Returns:
        [n] token ids.
    """
    vocab_size = scaled.shape[-1]
    candidates = min(vocab_size, max(candidates, int(top_k.max())))
    values, tokens = scaled.topk(candidates)
    limit = torch.where(top_k > 0, top_k, candidates)[:, None]
    values = values.masked_fill(torch.arange(candidates, device=scaled.device) >= limit, -torch.inf)
    mass = torch.where(top_k > 0, values.logsumexp(-1), scaled.logsumexp(-1))
    probabilities = torch.exp(values - mass[:, None])
    cumulated = probabilities.cumsum(-1)
    kept = ((cumulated - probabilities) < top_p[:, None]) & (probabilities >= min_p[:, None] * probabilities[:, :1])
    place = (values.masked_fill(~kept, -torch.inf) + gumbel_noise(keys, tokens)).argmax(-1, keepdim=True)
    drawn = tokens.gather(1, place)[:, 0]
    if candidates < vocab_size:
        # Every candidate was kept and there was no top-k: tokens beyond may belong to the set as well.
        open_rows = (kept[:, -1] & (top_k == 0)).nonzero()[:, 0]
        if len(open_rows):
            again = draw_truncated(
                scaled[open_rows], keys[open_rows], top_k[open_rows], top_p[open_rows], min_p[open_rows], candidates=vocab_size
            )
            drawn[open_rows] = again
    return drawn
