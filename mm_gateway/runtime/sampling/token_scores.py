"""Log-probabilities of tokens, and of the most probable ones beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Natural-log probabilities: of the token itself, and of the most probable ones, best first.

    Attributes:
        rank: of a given token, not of a sampled one: how many are at least as probable as it, itself counted once.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int | None = None


def score_tokens(logits: torch.Tensor, tokens: list[int], top: int) -> list[TokenScores]:
    """Log-probabilities of given tokens under given logits.

    Args:
        logits: [n, vocabulary] fp32, each row the distribution of the token of the same index.
        tokens: n ids. top: how many most probable tokens to report besides.
    """
    given = torch.tensor(tokens).to(logits.device)
    scores = scores_of(logits, logits.logsumexp(-1), given, [top] * len(tokens), list(range(len(tokens))))
    ranks = (logits > logits.gather(1, given[:, None])).sum(-1).tolist()
    return [TokenScores(scores[row].logprob, scores[row].top, rank + 1) for row, rank in enumerate(ranks)]


def scores_of(
    logits: torch.Tensor, log_normalizer: torch.Tensor, tokens: torch.Tensor, top: list[int], rows: list[int]
) -> dict[int, TokenScores]:
    """Log-probabilities of tokens that were drawn, by the row of the step.

    Args:
        logits: [n, vocabulary] fp32. log_normalizer: [n], their logsumexp. tokens: [n] ids.
        top: for each token, how many most probable ones to report besides. rows: of the tokens.
    """
    own = (logits.gather(1, tokens[:, None])[:, 0] - log_normalizer).tolist()
    most = max(top)
    if not most:
        return {row: TokenScores(logprob, ()) for row, logprob in zip(rows, own, strict=True)}
    values, ids = logits.topk(min(most, logits.shape[-1]))
    values = (values - log_normalizer[:, None]).tolist()
    ids = ids.tolist()
    return {row: TokenScores(own[i], tuple(zip(ids[i][: top[i]], values[i][: top[i]], strict=True))) for i, row in enumerate(rows)}
