"""Slots: who gets which, what is found again, what the budget drops."""

from __future__ import annotations

from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.kv_cache.allocators.slots import CopyPrefix, DropSlot, SlotAllocator
from mm_gateway.runtime.scheduling.allocator import Refusal, common_prefix_length
from mm_gateway.runtime.scheduling.sequence import Sequence


def sequence(id: int, tokens: list[int]) -> Sequence:
    return Sequence(id, id, tokens, GenerationConfig(), max_tokens=8, seed=0)


def finish(kv: SlotAllocator, seq: Sequence, computed: int | None = None) -> None:
    seq.computed = len(seq.tokens) if computed is None else computed
    kv.commit(seq)
    kv.release(seq)


def test_common_prefix_length_is_exact_around_its_stride() -> None:
    for length in (0, 1, 63, 64, 65, 130):
        a = list(range(length))
        assert common_prefix_length([*a, -1, 5], [*a, -2, 5], 1000) == length
        assert common_prefix_length(a, a, 1000) == length
        assert common_prefix_length([*a, 7], [*a, 7], length) == length


def test_the_next_turn_of_a_conversation_goes_on_in_place() -> None:
    kv = SlotAllocator(4, 100, 400)
    first = sequence(0, list(range(30)))
    assert kv.allocate(first) == 0
    slot = kv.slot_of(first)
    finish(kv, first)
    second = sequence(1, [*list(range(30)), 99, 98])
    assert kv.allocate(second) == 30
    assert kv.slot_of(second) == slot
    assert kv.pending == []


def test_a_prefix_of_a_running_sequence_is_copied() -> None:
    kv = SlotAllocator(4, 100, 400)
    live = sequence(0, list(range(40)))
    kv.allocate(live)
    live.computed = 40
    kv.commit(live)
    live.tokens.append(7)
    other = sequence(1, [*list(range(32)), 500])
    assert kv.allocate(other) == 32
    assert kv.pending == [CopyPrefix(kv.slot_of(live), kv.slot_of(other), 32)]


def test_a_prefix_that_is_being_computed_is_waited_for() -> None:
    kv = SlotAllocator(4, 100, 400)
    live = sequence(0, list(range(40)))
    kv.allocate(live)
    assert kv.allocate(sequence(1, list(range(40)))) is Refusal.WAIT_FOR_PREFIX


def test_the_last_token_always_runs() -> None:
    kv = SlotAllocator(4, 100, 400)
    first = sequence(0, list(range(30)))
    kv.allocate(first)
    finish(kv, first)
    assert kv.allocate(sequence(1, list(range(30)))) == 29


def test_idle_contents_go_least_recently_used_first_when_the_budget_is_short() -> None:
    kv = SlotAllocator(4, 100, 100)
    for id in range(3):
        seq = sequence(id, [id * 1000 + i for i in range(30)])
        kv.allocate(seq)
        finish(kv, seq)
    kv.allocate(sequence(9, [9000 + i for i in range(50)]))
    assert DropSlot(0) in kv.pending
    assert kv.committed_tokens <= 100
    again = sequence(10, [2000 + i for i in range(30)])
    assert kv.allocate(again) == 29


def test_what_cannot_fit_is_refused_and_changes_nothing() -> None:
    kv = SlotAllocator(2, 100, 60)
    live = sequence(0, list(range(40)))
    kv.allocate(live)
    assert kv.allocate(sequence(1, [5000 + i for i in range(30)])) is Refusal.NO_ROOM
    live.tokens += range(30)
    assert not kv.extend(live)
    assert kv.committed_tokens == 40


def test_discarded_contents_are_never_found() -> None:
    kv = SlotAllocator(2, 100, 200)
    seq = sequence(0, list(range(30)))
    kv.allocate(seq)
    seq.computed = 30
    kv.commit(seq)
    kv.discard(seq)
    assert kv.committed_tokens == 0
    assert kv.allocate(sequence(1, list(range(30)))) == 0


def test_a_kept_prefix_that_leaves_no_room_beside_it_gives_way() -> None:
    kv = SlotAllocator(4, 100, 100)
    kept = sequence(0, list(range(90)))
    kv.allocate(kept)
    slot = kv.slot_of(kept)
    finish(kv, kept)
    short = sequence(1, [*range(20), 500])  # less than half of it: it would be copied, were there room
    assert kv.allocate(short) == 20
    assert kv.slot_of(short) == slot
    kv.check_integrity()
