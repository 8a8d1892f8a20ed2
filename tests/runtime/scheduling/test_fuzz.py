"""Scheduler and allocators under random load and tight budgets: nobody waits for ever, and everybody reads his own tokens.

Tokens are invented, and the storage holds token ids in place of keys and values. `--fuzz-cases N` sets the number of cases.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator
from mm_gateway.runtime.kv_cache.allocators.slots import SlotAllocator
from mm_gateway.runtime.scheduling.length_scaling import LengthScaling
from mm_gateway.runtime.scheduling.prompt_lookup import PromptLookup
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence, Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence
from tests.support.token_storage import BlockStorage, SlotStorage, TokenTier, cell

SHARES = 20
PLAIN, SCORED = GenerationConfig(), GenerationConfig(prompt_logprobs=0)


@dataclass
class Case:
    """One random engine without a model, and its load.

    Attributes:
        scored: positions of a prompt that went through the model since it last began, by id of sequences that are scored.
        done: sequences that ended; cancelled: those that were cancelled.
    """

    rng: random.Random
    context: int = 0
    tier: TokenTier | None = None
    scheduler: Scheduler = field(init=False)
    kv: SlotAllocator | BlockAllocator = field(init=False)
    storage: SlotStorage | BlockStorage = field(init=False)
    live: dict[int, Sequence] = field(default_factory=dict)
    scored: dict[int, list[int]] = field(default_factory=dict)
    done: int = 0
    cancelled: int = 0
    submitted: int = 0
    guessed: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        rng = self.rng
        self.context = rng.randint(20, 64)
        reuse = rng.random() < 0.9
        contexts = rng.choice([1, 1, 1.3, 2, 2.5, 4])  # the budget, in contexts
        max_running = rng.randint(1, 6)
        original = rng.randint(8, self.context)
        self.scaling = LengthScaling(original, switches=rng.random() < 0.7) if rng.random() < 0.3 else None
        if rng.random() < 0.5:
            slots = rng.randint(max(1, max_running // 2), 2 * max_running)
            self.kv = SlotAllocator(slots, self.context, int(contexts * self.context), reuse=reuse)
            self.kv.tier = self.tier = TokenTier(rng, rng.choice([4, 8, 16])) if rng.random() < 0.6 else None
            self.storage = SlotStorage(self.kv, slots, self.context, self.scaling, self.tier)
        else:
            size = rng.choice([4, 16, 20, 32])
            blocks = int(-(-self.context // size) * contexts) + 1
            self.kv = BlockAllocator(blocks, size, self.context, reuse=reuse)
            self.storage = BlockStorage(self.kv, blocks, size, self.scaling)
        self.scheduler = Scheduler(
            self.kv,
            max_running=max_running,
            max_step_tokens=rng.choice([1, 8, 24, 64]),
            max_prefills=rng.choice([1, 2, 16]),
            scaling=self.scaling,
        )
        self.beginnings = [[rng.randrange(3) for _ in range(self.context)] for _ in range(2)]
        self._ids = itertools.count()

    def submit(self) -> None:
        """One request: one prompt or two, one choice or a few, continued or embedded or scored."""
        rng, group = self.rng, next(self._ids)
        kind = rng.random()
        config = SCORED if kind < 0.2 else PLAIN
        pooling = "mean" if kind > 0.85 else None
        for _ in range(rng.choice([1, 1, 2])):
            shared = rng.choice(self.beginnings)[: rng.choice([0, rng.randrange(self.context), self.context // 2])]
            own = [rng.randrange(3) for _ in range(rng.randint(0, self.context // 3))]
            prompt = ([*shared, *own] or [1])[: self.context]
            room = self.context - len(prompt)
            max_tokens = 0 if pooling else min(room, rng.choice([0, 1, 3, 10, room]))
            for _ in range(1 if pooling else rng.choice([1, 1, 1, 3])):
                seq = Sequence(next(self._ids), group, prompt, config, max_tokens=max_tokens, seed=0, pooling=pooling)
                if self.scaling is None and rng.random() < 0.5:
                    seq.lookup = PromptLookup()
                self.live[seq.id] = seq
                self.submitted += 1
                self.scheduler.add(seq)

    def cancel(self) -> None:
        seq = self.live.pop(self.rng.choice(list(self.live)))
        self.scheduler.remove(seq, discard=self.rng.random() < 0.3)
        self.cancelled += 1

    def step(self) -> None:
        """What the engine does in a step, and what must hold after it."""
        step = self.scheduler.schedule()
        idle = not (self.scheduler.running or self.scheduler.waiting)
        assert step or idle or self.kv.transferring, "nothing is scheduled, and somebody waits"
        self.storage.apply()
        for scheduled in step:
            seq = scheduled.seq
            start, stop = seq.computed, seq.computed + scheduled.count
            assert scheduled.sample == (stop == len(seq.tokens))
            self.storage.write(seq, start, stop)
            if seq.score_prompt:
                if not start:
                    self.scored[seq.id] = []
                self.scored[seq.id] += range(start, stop)
        for scheduled in step:
            self.guessed += scheduled.seq.draft_len
            self.advance(scheduled)
        self.kv.check_integrity()

    def advance(self, scheduled: ScheduledSequence) -> None:
        seq = scheduled.seq
        draft = seq.take_draft()
        if not draft:
            self.scheduler.computed(seq, scheduled.count)
        accepted = 0
        while scheduled.sample and seq.id in self.live:
            if draft:
                self.scheduler.computed(seq, 1)
            drawn = self.sample(seq)
            if accepted == len(draft) or drawn != draft[accepted]:
                break
            accepted += 1
        if draft and seq.lookup is not None:
            self.accepted += accepted
            seq.lookup.learn(seq.tokens, len(draft), accepted)

    def sample(self, seq: Sequence) -> int:
        length = len(seq.tokens) if self.scaling is not None and self.scaling.switches else seq.prompt_len
        assert self.storage.read(seq, seq.computed) == [cell(seq, at, length, self.scaling) for at in range(len(seq.tokens))]
        if seq.score_prompt:
            assert self.scored.pop(seq.id) == list(range(seq.prompt_len))
            seq.score_prompt = False
        drawn = self.rng.randrange(3)
        if seq.max_tokens:
            seq.tokens.append(drawn)
        if seq.output_len >= seq.max_tokens:
            del self.live[seq.id]
            self.done += 1
            self.scheduler.remove(seq, discard=seq.pooling is not None)
        return drawn


def run(seed: int) -> Case:
    case = Case(random.Random(seed))
    rng, requests = case.rng, case.rng.randint(2, 8)
    steps = 0
    while requests or case.live:
        if requests and (not case.live or rng.random() < 0.5):
            requests -= 1
            case.submit()
        if case.live and rng.random() < 0.03:
            case.cancel()
        case.step()
        steps += 1
        assert steps < 20_000, "somebody waits for ever"
    assert case.done + case.cancelled == case.submitted
    assert case.scheduler.running == case.scheduler.waiting == 0
    return case


@pytest.mark.parametrize("share", range(SHARES))
def test_any_load_in_any_budget_of_a_context_and_more_is_finished(share: int, fuzz_cases: int) -> None:
    preemptions = restored = 0
    for seed in range(share, fuzz_cases, SHARES):
        try:
            case = run(seed)
        except Exception as error:
            raise AssertionError(f"case {seed}: {error}") from error
        preemptions += case.scheduler.preemptions
        restored += case.tier.restored if case.tier is not None else 0
    assert fuzz_cases < 5_000 or preemptions > 40  # it is tight
    assert fuzz_cases < 5_000 or restored > 400
