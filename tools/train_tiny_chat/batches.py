"""Examples -> token ids, as the gateway's ChatML template renders them -> rows of one length that documents share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mm_gateway.chat_templates.tool_formats.hermes import Hermes
from mm_gateway.core import Message
from tools.train_tiny_chat.corpus import Example, examples

LENGTH = 1024
"""Tokens of a row; longer examples are left out."""
REPEATED = 0.3
"""How much a prompt's token is learned that follows its predecessor for the second time: this is how copying is learned early."""


class Encoded(NamedTuple):
    """Token ids, and for each how much it is learned: 1 in answers, 0 in prompts but for what is repeated there."""

    ids: list[int]
    learned: list[float]


def encode(example: Example, tokenizer: Tokenizer) -> Encoded:
    """Ids as at serving: each turn's text is encoded by itself, between the control tokens; what reads like one is text."""
    tokenizer.encode_special_tokens = True
    if not example.messages:
        ids = [*tokenizer.encode(example.text).ids, token_id(tokenizer, "<|endoftext|>")]
        return Encoded(ids, [1.0] * len(ids))
    turns: Sequence[Message] = example.messages
    if example.tools:
        turns, _ = Hermes().flatten(turns, example.tools)
    start, end = token_id(tokenizer, "<|im_start|>"), token_id(tokenizer, "<|im_end|>")
    newline = tokenizer.encode("\n").ids
    ids: list[int] = []
    learned: list[float] = []
    for turn in turns:
        if turn.role == "assistant":
            head, body = [start, *tokenizer.encode("assistant\n").ids], [*tokenizer.encode(turn.content).ids, end]
        else:
            head, body = [start, *tokenizer.encode(f"{turn.role}\n{turn.content}").ids, end], []
        ids += [*head, *body, *newline]
        learned += [*([0.0] * len(head)), *([1.0] * len(body)), *([0.0] * len(newline))]
    seen: set[tuple[int, int]] = set()
    for at, pair in enumerate(itertools.pairwise(ids), 1):
        if pair in seen and not learned[at]:
            learned[at] = REPEATED
        seen.add(pair)
    return Encoded(ids, learned)


def token_id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None, f"the tokenizer has no {text}"
    return found


class Batch(NamedTuple):
    """All are [rows, LENGTH]: ids; positions, from 0 in each document; the number of each document, -1 where there is none;
    targets[i], what comes after ids[i], or -1; and weights[i], how much that counts."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    targets: Tensor
    weights: Tensor

    def mask(self) -> Tensor:
        """[rows, 1, LENGTH, LENGTH], True where a token sees another: none of another document, and none after it."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        return same.tril()[:, None]


def batches(tokenizer: Tokenizer, seed: int, rows: int, *, early: bool = False) -> Iterator[Batch]:
    """Batches without end; the same seed gives the same ones. early: see `corpus.examples`."""
    full: list[list[Encoded]] = [[]]
    room = LENGTH
    for example in examples(seed, early=early):
        encoded = encode(example, tokenizer)
        size = len(encoded.ids)
        if size > LENGTH:
            continue
        if size > room:
            if len(full) == rows:
                yield _batch(full)
                full = []
            full.append([])
            room = LENGTH
        full[-1].append(encoded)
        room -= size


def _batch(rows: Sequence[Sequence[Encoded]]) -> Batch:
    ids = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    positions, documents, targets = torch.zeros_like(ids), torch.full_like(ids, -1), torch.full_like(ids, -1)
    weights = torch.zeros(ids.shape)
    for at, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            end = start + len(document.ids)
            ids[at, start:end] = torch.tensor(document.ids)
            positions[at, start:end] = torch.arange(end - start)
            documents[at, start:end] = number
            targets[at, start : end - 1] = torch.tensor(document.ids[1:])
            weights[at, start : end - 1] = torch.tensor(document.learned[1:])
            start = end
    return Batch(ids, positions, documents, targets.masked_fill(weights == 0, -1), weights)
