"""What is asked of every server of a comparison: one cell is a number of clients and a length of prompts. Knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.support.workload import Workload

LONG_PROMPT = 512
"""Prompts from this length on are read for one token: what is measured is how fast they are read."""


@dataclass(frozen=True)
class Cell:
    """clients: in flight, each with its next request once the last one is answered. prompt_tokens, output_tokens: of each request."""

    clients: int
    prompt_tokens: int
    output_tokens: int

    @property
    def is_long(self) -> bool:
        return self.prompt_tokens >= LONG_PROMPT

    def __str__(self) -> str:
        clients = f"{self.clients} client{'s' * (self.clients > 1)}"
        if not self.is_long:
            return f"{clients}, {self.prompt_tokens} + {self.output_tokens}"
        return f"prompt of {self.prompt_tokens:,}" + (f", {clients}" if self.clients > 1 else "")

    def workload(self, round_index: int, scale: float, *, one_at_a_time: bool = False, ignore_eos: bool = True) -> Workload:
        """Its requests in a round. Every cell has prompts of its own: none that a server has kept from another."""
        share = 1 if one_at_a_time else 4 if self.clients == 1 and not self.is_long else 2
        return Workload(
            clients=self.clients,
            requests=max(self.clients, round(share * self.clients * scale)),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            seed=(round_index + 1) * 10**8 + self.clients * 10**5 + self.prompt_tokens,
            ignore_eos=ignore_eos,
            warmup=0,
        )


def cells(clients: Sequence[int], prompts: Sequence[int], long_clients: Sequence[int], output_tokens: int) -> list[Cell]:
    """Short prompts by `clients`, answered with output_tokens; long ones by `long_clients`, answered with one."""
    short = [Cell(count, tokens, output_tokens) for tokens in prompts if tokens < LONG_PROMPT for count in clients]
    return short + [Cell(count, tokens, 1) for tokens in prompts if tokens >= LONG_PROMPT for count in long_clients]


_PRECISION_FACTORS = {"f32": 1.0, "f16": 1.2, "bf16": 1.2, "8bit": 1.7, "4bit": 1.9}


def guessed_s(cell: Cell, precision: str, scale: float, *, one_at_a_time: bool) -> float:
    """About how long a cell takes with a model of 135 million parameters on two cores: for the estimate before a run alone."""
    workload = cell.workload(0, scale, one_at_a_time=one_at_a_time)
    if cell.is_long:
        return workload.requests * cell.prompt_tokens / (500 * _PRECISION_FACTORS[precision])
    at_once = 1 if one_at_a_time else cell.clients
    speed = 45 * at_once**0.5 * _PRECISION_FACTORS[precision]
    return workload.requests * workload.output_tokens / speed
