"""The scheduler over real allocators, driven step by step without a model: tokens are invented."""

from __future__ import annotations

import random

import pytest

from mm_gateway.core import GenerationConfig
from mm_gateway.errors import EngineError
from mm_gateway.runtime.kv_cache.allocators import blocks, slots
from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator
from mm_gateway.runtime.kv_cache.allocators.slots import SlotAllocator
from mm_gateway.runtime.scheduling.allocator import Refusal, common_prefix_length
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence, Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence


def sequence(id: int, prompt: list[int], *, group: int | None = None, max_tokens: int = 8) -> Sequence:
    return Sequence(id, id if group is None else group, prompt, GenerationConfig(), max_tokens=max_tokens, seed=0)


def run_step(scheduler: Scheduler) -> list[ScheduledSequence]:
    """Schedule, 'compute', append an invented token where one is sampled, and remove what is finished."""
    step = scheduler.schedule()
    for scheduled in step:
        scheduler.computed(scheduled.seq, scheduled.count)
    for scheduled in step:
        if scheduled.sample:
            scheduled.seq.tokens.append(1000 + scheduled.seq.id)
            if scheduled.seq.output_len >= scheduled.seq.max_tokens:
                scheduler.remove(scheduled.seq)
    return step


def make(
    *, slots: int = 8, slot_len: int = 256, budget: int = 2048, max_running: int = 8, step_tokens: int = 32
) -> tuple[Scheduler, SlotAllocator]:
    kv = SlotAllocator(slots, slot_len, budget)
    return Scheduler(kv, max_running=max_running, max_step_tokens=step_tokens), kv


def prompt(n: int, salt: int = 0) -> list[int]:
    return [salt * 1000 + i for i in range(n)]


def test_a_long_prompt_is_cut_into_chunks_and_never_stalls_a_running_stream() -> None:
    scheduler, _ = make()
    short, long = sequence(0, prompt(4, 1), max_tokens=50), sequence(1, prompt(200, 2))
    scheduler.add(short)
    run_step(scheduler)
    scheduler.add(long)
    while long.output_len == 0:
        before = short.output_len
        step = run_step(scheduler)
        assert sum(scheduled.count for scheduled in step) <= 32
        assert short.output_len == before + 1


def test_a_short_prompt_overtakes_a_long_one_in_prefill() -> None:
    scheduler, _ = make(step_tokens=16)
    long, short = sequence(0, prompt(200, 1)), sequence(1, prompt(6, 2))
    scheduler.add(long)
    run_step(scheduler)
    scheduler.add(short)
    run_step(scheduler)
    assert short.output_len == 1
    assert long.computed > 16


def test_prompts_of_one_length_are_read_one_after_the_other() -> None:
    scheduler, _ = make(step_tokens=32)
    prompts = [sequence(id, prompt(30, id)) for id in range(4)]
    for seq in prompts:
        scheduler.add(seq)
    answered = []
    while len(answered) < 4:
        run_step(scheduler)
        answered.append(sum(seq.output_len > 0 for seq in prompts))
    assert answered == [1, 2, 3, 4]


def test_a_long_prompt_is_read_however_many_short_ones_keep_coming() -> None:
    scheduler, _ = make(step_tokens=16, max_running=4)
    long = sequence(0, prompt(200, 1))
    scheduler.add(long)
    steps = 0
    while long.output_len == 0:
        steps += 1
        assert steps < 60
        for id in (2 * steps, 2 * steps + 1):
            scheduler.add(sequence(id, prompt(8, id), max_tokens=1))
        run_step(scheduler)


def test_requests_take_turns_however_many_choices_one_has() -> None:
    scheduler, _ = make(max_running=4, step_tokens=64)
    greedy_request = [sequence(i, prompt(5, i), group=100) for i in range(20)]
    for seq in greedy_request:
        scheduler.add(seq)
    scheduler.add(sequence(50, prompt(5, 50), group=200))
    admitted = {scheduled.seq.id for scheduled in run_step(scheduler)}
    assert 50 in admitted


def test_places_in_the_queue_are_the_order_of_admission() -> None:
    scheduler, _ = make(max_running=1)
    first, *others = [sequence(i, prompt(5, i), max_tokens=1, group=i) for i in range(4)]
    for seq in (first, *others, sequence(10, prompt(5, 2), group=2)):
        scheduler.add(seq)
    assert scheduler.places() == {0: 1, 1: 2, 2: 3, 3: 4}
    scheduler.schedule()
    assert scheduler.is_running(first) and not scheduler.is_running(others[0])
    assert scheduler.places() == {1: 1, 2: 2, 3: 3}
    scheduler.remove(others[0])
    assert scheduler.places() == {2: 1, 3: 2}
    admitted = []
    while scheduler.waiting:
        expected = min(scheduler.places(), key=scheduler.places().__getitem__)
        scheduler.remove(first if not admitted else admitted[-1])
        admitted.append(scheduler.schedule()[0].seq)
        assert admitted[-1].group == expected


def test_choices_of_one_prompt_wait_for_the_first_and_share_it() -> None:
    scheduler, _ = make(step_tokens=64)
    siblings = [sequence(i, prompt(40), group=1) for i in range(3)]
    for seq in siblings:
        scheduler.add(seq)
    first = run_step(scheduler)
    assert [scheduled.seq.id for scheduled in first] == [0]
    second = run_step(scheduler)
    assert {scheduled.seq.id: scheduled.count for scheduled in second} == {0: 1, 1: 1, 2: 1}
    assert [seq.cached for seq in siblings] == [0, 39, 39]


def test_without_room_the_youngest_is_preempted_and_still_finishes() -> None:
    scheduler, _ = make(slots=2, slot_len=64, budget=70)
    old, young = sequence(0, prompt(30, 1), max_tokens=20), sequence(1, prompt(30, 2), max_tokens=20)
    scheduler.add(old)
    scheduler.add(young)
    for _ in range(100):
        if not run_step(scheduler):
            break
    assert scheduler.preemptions > 0
    assert (old.output_len, young.output_len) == (20, 20)
    assert scheduler.running == scheduler.waiting == 0


def test_removal_anywhere_frees_everything_at_once() -> None:
    scheduler, _ = make(slots=2, max_running=2)
    running, waiting = sequence(0, prompt(10, 1)), sequence(1, prompt(10, 2))
    other = sequence(2, prompt(10, 3))
    for seq in (running, other, waiting):
        scheduler.add(seq)
    run_step(scheduler)
    scheduler.remove(waiting)
    scheduler.remove(running)
    scheduler.remove(running)
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    later = sequence(3, prompt(10, 4))
    scheduler.add(later)
    run_step(scheduler)
    assert later.output_len == 1


@pytest.mark.parametrize("layout", ["slots", "blocks"])
@pytest.mark.parametrize("seed", range(6))
def test_random_arrivals_and_cancels_leave_nothing_behind(seed: int, layout: str) -> None:
    rng = random.Random(seed)
    kv = SlotAllocator(6, 96, 260) if layout == "slots" else BlockAllocator(17, 16, 96)
    scheduler = Scheduler(kv, max_running=4, max_step_tokens=24)
    alive: dict[int, Sequence] = {}
    cancelled: set[int] = set()
    everything: list[Sequence] = []
    for step in range(400):
        if rng.random() < 0.4 and step < 300:
            shared = prompt(rng.choice([0, 20, 40]), 7)
            seq = sequence(
                len(everything),
                shared + prompt(rng.randint(1, 30), rng.randint(1, 4)),
                group=rng.randint(0, 5),
                max_tokens=rng.randint(1, 20),
            )
            everything.append(seq)
            alive[seq.id] = seq
            scheduler.add(seq)
        if alive and rng.random() < 0.1:
            victim = alive.pop(rng.choice(list(alive)))
            cancelled.add(victim.id)
            scheduler.remove(victim)
        run_step(scheduler)
        alive = {id: seq for id, seq in alive.items() if seq.output_len < seq.max_tokens}
        assert not isinstance(kv, SlotAllocator) or kv.committed_tokens <= 260
    for _ in range(600):
        if not run_step(scheduler):
            break
    assert scheduler.running == scheduler.waiting == 0
    assert all(seq.output_len == seq.max_tokens for seq in everything if seq.id not in cancelled)
    assert not isinstance(kv, BlockAllocator) or kv.free_blocks == 16


def test_short_prompts_that_fit_one_step_are_all_in_it_and_long_ones_come_a_few_at_a_time() -> None:
    for length, together in ((4, 20), (40, 16)):
        scheduler, _ = make(slots=24, max_running=24, step_tokens=100)
        for id in range(20):
            scheduler.add(sequence(id, prompt(length, id)))
        run_step(scheduler)
        assert scheduler.running == together


@pytest.mark.parametrize("layout", ["slots", "blocks"])
def test_a_step_costs_the_same_however_many_wait_for_one_prefix(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def comparisons(waiting: int) -> int:
        """Of tokens, in a step in which 31 run, one of them has begun a prefix, and so many wait for it."""
        kv = SlotAllocator(64, 4096, 64 * 4096) if layout == "slots" else BlockAllocator(1025, 256, 4096)
        scheduler = Scheduler(kv, max_running=32, max_step_tokens=64)
        for id in range(30):
            scheduler.add(sequence(id, prompt(4, id + 1), max_tokens=1000))
        run_step(scheduler)
        for id in range(100, 101 + waiting):
            scheduler.add(sequence(id, [*prompt(2000), id]))
        run_step(scheduler)
        assert (scheduler.running, scheduler.waiting) == (31, waiting)
        counted = 0

        def count(*args: list[int] | int) -> int:
            nonlocal counted
            counted += 1
            return common_prefix_length(*args)  # type: ignore[arg-type]

        for module in (slots, blocks):
            monkeypatch.setattr(module, "common_prefix_length", count)
        run_step(scheduler)
        monkeypatch.undo()
        return counted

    assert comparisons(1000) == comparisons(50) > 0


def test_who_waits_for_a_prefix_does_not_hold_up_those_behind() -> None:
    scheduler, _ = make(step_tokens=16)
    first, sibling, other = sequence(0, prompt(100)), sequence(1, prompt(100)), sequence(2, prompt(5, 3))
    for seq in (first, sibling, other):
        scheduler.add(seq)
    run_step(scheduler)
    assert scheduler.is_running(other) and not scheduler.is_running(sibling)


def test_a_step_that_can_do_nothing_is_an_error_that_names_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, kv = make(budget=256)
    monkeypatch.setattr(kv, "allocate", lambda seq: Refusal.NO_ROOM)
    scheduler.add(sequence(0, prompt(40)))
    with pytest.raises(EngineError, match=r"0 sequences run, 1 wait, the longest needs 40 tokens, 256 of at most 256 a sequence are free"):
        scheduler.schedule()


def test_a_sequence_that_would_outgrow_the_cache_is_refused_when_it_comes() -> None:
    scheduler, _ = make(slot_len=64, budget=64)
    scheduler.add(sequence(0, prompt(60), max_tokens=5))  # the last token is never stored
    with pytest.raises(EngineError, match="65 tokens can never be held by a KV cache of 64"):
        scheduler.add(sequence(1, prompt(60), max_tokens=6))
    assert scheduler.waiting == 1


def test_the_only_running_sequence_grows_to_all_that_there_is() -> None:
    scheduler, kv = make(slots=4, slot_len=64, budget=64)
    kept = sequence(0, prompt(40), max_tokens=1)
    scheduler.add(kept)
    run_step(scheduler)
    long = sequence(1, prompt(18), max_tokens=46)  # less than half of what is kept, and later all the room
    scheduler.add(long)
    while scheduler.running or scheduler.waiting:
        run_step(scheduler)
        kv.check_integrity()
    assert long.output_len == 46
