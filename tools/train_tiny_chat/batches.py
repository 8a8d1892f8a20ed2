"""Examples -> batches of one length: short documents share rows, long ones stand alone; targets are -1 where nothing is learned."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.train_tiny_chat.corpus.conversation import Encoded, encode
from tools.train_tiny_chat.corpus.mixture import examples
from tools.train_tiny_chat.network import LONGEST_MASKED

LENGTHS = (LONGEST_MASKED, 384, 512, 768, 1024, 1536)


class Batch(NamedTuple):
    """All are [rows, length]; targets[i] is what comes after ids[i], or -1, and weights[i] how much it counts."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    targets: Tensor
    weights: Tensor


def batches(tokenizer: Tokenizer, seed: int, tokens: int, together: int = 1, *, early: bool = False) -> Iterator[list[Batch]]:
    """`together` batches of one shape at a time, of about `tokens` tokens each, without end; the same seed gives the same ones.

    early: see `mixture`.
    """
    open_rows: list[list[Encoded]] = []
    full: dict[int, list[list[Encoded]]] = {length: [] for length in LENGTHS}
    for example in examples(seed, early=early):
        encoded = encode(example, tokenizer)
        size = len(encoded.ids)
        length = next((length for length in LENGTHS if size <= length), None)
        if length is None:
            continue  # longer than what is trained
        if length == LONGEST_MASKED:
            _pack(encoded, open_rows, full[length])
        else:
            full[length].append([encoded])
        count = -(-tokens // length)
        if len(full[length]) >= count * together:
            rows, full[length] = full[length], []
            yield [_batch(rows[at * count : (at + 1) * count], length) for at in range(together)]


def _pack(encoded: Encoded, open_rows: list[list[Encoded]], full: list[list[Encoded]]) -> None:
    """Into the open row that it fills best; the fullest row is closed where too many are open."""
    size = len(encoded.ids)
    used = [sum(len(document.ids) for document in row) for row in open_rows]
    fitting = [(total, at) for at, total in enumerate(used) if total + size <= LONGEST_MASKED]
    if fitting:
        total, at = max(fitting)
        open_rows[at].append(encoded)
        if total + size > LONGEST_MASKED - 8:
            full.append(open_rows.pop(at))
        return
    open_rows.append([encoded])
    if len(open_rows) > 24:
        full.append(open_rows.pop(max(range(len(used)), key=used.__getitem__)))


def _batch(rows: list[list[Encoded]], length: int) -> Batch:
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions, documents = torch.zeros_like(ids), torch.full_like(ids, -1)
    targets, weights = torch.full_like(ids, -1), torch.zeros(ids.shape)
    for at, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            end = start + len(document.ids)
            ids[at, start:end] = torch.tensor(document.ids)
            positions[at, start:end] = torch.arange(end - start)
            documents[at, start:end] = number
            targets[at, start : end - 1] = torch.tensor(document.ids[1:])
            weights[at, start : end - 1] = torch.tensor(_weights(document.learned)[1:])
            start = end
    return Batch(ids, positions, documents, targets.masked_fill(weights == 0, -1), weights)


def _weights(learned: list[float]) -> list[float]:
    """A long answer counts more than a short one, but not in proportion: the one word that was asked for must not drown."""
    weights: list[float] = []
    for whole, part in itertools.groupby(learned, lambda weight: weight >= 1):
        run = list(part)
        weights += [weight * len(run) ** -0.5 for weight in run] if whole else run
    answers = [weight for weight, full in zip(weights, learned, strict=True) if full >= 1]
    mean = sum(answers) / max(1, len(answers))
    return [weight if full >= 1 else weight * mean for weight, full in zip(weights, learned, strict=True)]
