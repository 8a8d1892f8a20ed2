"""Who asks for what: models by popularity, conversations of several turns, and when they begin; the same in every run of a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.figures import Family, Machine, ModelFigures, on
from mm_gateway.backends.groups.wanted import Wanted

MAX_RUNNING = 16
"""Sequences of a batch, at most, by which the capacity of a fleet is counted too."""


class Turn(Wanted):
    """One request. Attributes: model: its key. conversation: whose it is. prompt, output: tokens. number: of the turn, from 0.

    began: when its client sent it. first_token: when it came. cached: tokens of the prompt that were not computed. retries: made for it.
    """

    def __init__(self, model: int, conversation: int, number: int, prompt: int, output: int, began: float) -> None:
        # What the router wants to know is here without a request that it could be read from.
        self.__dict__["key"] = conversation * 0x9E3779B97F4A7C15 % 2**64
        self.tried = {}
        self.refused_context = 0
        self.model, self.conversation, self.number = model, conversation, number
        self.prompt, self.output, self.began = prompt, output, began
        self.first_token = math.nan
        self.cached = self.retries = 0
        self.cold = False


@dataclass(frozen=True)
class Habits:
    """Of those who ask.

    Attributes:
        popularity: exponent of Zipf's law over the models. turns: mean of a conversation, geometric.
        first, further: tokens of the prompt of the first turn, and what each later one adds, medians. output: of a reply, likewise.
        spread: sigma of their log-normal distributions. think_s: mean time between a reply and the next turn, exponential.
        low: load at night, of the peak. burst: how many times as much comes in the burst.
    """

    popularity: float = 1.2
    turns: float = 4.0
    first: float = 3000.0
    further: float = 600.0
    output: float = 600.0
    spread: float = 0.8
    think_s: float = 10.0
    low: float = 0.6
    burst: float = 1.3


class Workload:
    """Models of a machine, and the conversations with them.

    Attributes:
        models: by key, the most popular first. shares: of the conversations, by key.
    """

    def __init__(self, machine: Machine, families: Sequence[Family], seed: int, habits: Habits | None = None) -> None:
        self.habits = habits or Habits()
        self.random = Random(seed)
        of = [family for family in families for _ in range(family.models)]
        Random(1).shuffle(of)  # large models are as popular as small ones, in the same order whatever the seed
        self.models = [on(machine, family, key) for key, family in enumerate(of)]
        weights = [1 / (rank + 1) ** self.habits.popularity for rank in range(len(of))]
        self.shares = [weight / sum(weights) for weight in weights]
        self._conversations = 0

    def request_s(self, model: ModelFigures) -> float:
        """Seconds that a mean request takes of a machine whose batches are full, and that keeps no prefixes."""
        habits = self.habits
        mean = math.exp(habits.spread**2 / 2)
        # A geometric number of turns: those before a turn are one less than the mean, seen from a request.
        before = (habits.turns - 1) * (habits.further + habits.output)
        prompt, output = mean * (habits.first + before), mean * habits.output
        sequences = max(1, min(MAX_RUNNING, int(model.kv_tokens / (prompt + output))))
        return prompt * model.token_s + output * model.step(sequences) / sequences

    def mean_request_s(self) -> float:
        return sum(share * self.request_s(model) for share, model in zip(self.shares, self.models, strict=True))

    def begin(self, clock: Clock, peak: float, until: float, ask: Callable[[Turn], None]) -> None:
        """Let conversations come, and those that began before go on.

        peak: conversations a second at the peak of the day; a run is one day.
        """
        turns, think_s = self.habits.turns, self.habits.think_s
        for _ in range(int(peak * self._rate(0.0, until) * turns * (think_s + 5.0))):
            number = min(int(self.random.expovariate(1 / turns)), 20)
            clock.at(self.random.expovariate(1 / think_s), self._conversation(clock, number, ask))

        def come() -> None:
            if clock.now > until:
                return
            if self.random.random() < self._rate(clock.now, until) / self.habits.burst:
                self._conversation(clock, 0, ask)()
            clock.after(self.random.expovariate(peak * self.habits.burst), come)

        clock.after(self.random.expovariate(peak * self.habits.burst), come)

    def _rate(self, now: float, until: float) -> float:
        """Of the peak: one swing of a day, and a burst at its height."""
        if 0.62 <= now / until <= 0.65:
            return self.habits.burst
        low = self.habits.low
        return low + (1 - low) * (1 - math.cos(2 * math.pi * now / until)) / 2

    def _conversation(self, clock: Clock, number: int, ask: Callable[[Turn], None]) -> Callable[[], None]:
        def start() -> None:
            self._conversations += 1
            model = self.random.choices(self.models, self.shares)[0].key
            prompt = self._tokens(self.habits.first)
            prompt += sum(self._tokens(self.habits.further) + self._tokens(self.habits.output) for _ in range(number))
            ask(self._turn(model, self._conversations, number, prompt, clock.now))

        return start

    def next_turn(self, turn: Turn, clock: Clock, ask: Callable[[Turn], None]) -> None:
        """What follows a turn that ended, if anything does."""
        if self.random.random() < 1 / self.habits.turns:
            return
        prompt = turn.prompt + turn.output + self._tokens(self.habits.further)
        further = self._turn(turn.model, turn.conversation, turn.number + 1, prompt, 0.0)

        def say() -> None:
            further.began = clock.now
            ask(further)

        clock.after(self.random.expovariate(1 / self.habits.think_s), say)

    def _turn(self, model: int, conversation: int, number: int, prompt: int, now: float) -> Turn:
        # Nobody sends what the model has no room for.
        most = self.models[model].kv_tokens
        output = min(self._tokens(self.habits.output), most // 3)
        return Turn(model, conversation, number, min(prompt, most - output), output, now)

    def _tokens(self, middle: float) -> int:
        return max(1, int(self.random.lognormvariate(math.log(middle), self.habits.spread)))
