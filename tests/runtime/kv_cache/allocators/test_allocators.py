"""What every KV allocator promises, slots and blocks alike; and what blocks do beyond it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator, CopyBlock
from mm_gateway.runtime.kv_cache.allocators.slots import SlotAllocator
from mm_gateway.runtime.scheduling.allocator import KVAllocator, Refusal
from mm_gateway.runtime.scheduling.sequence import Sequence
from tests.support.token_storage import BlockStorage

Make = Callable[[], KVAllocator]


@pytest.fixture(params=["slots", "blocks of 4", "blocks of 32"])
def make(request: pytest.FixtureRequest) -> Make:
    """Room for about 320 tokens, 128 of one sequence."""
    if request.param == "slots":
        return lambda: SlotAllocator(4, 128, 320)
    size = 4 if request.param == "blocks of 4" else 32
    return lambda: BlockAllocator(320 // size + 1, size, 128)


def sequence(id: int, tokens: list[int]) -> Sequence:
    return Sequence(id, id, list(tokens), GenerationConfig(), max_tokens=8, seed=0)


def compute(kv: KVAllocator, seq: Sequence, computed: int | None = None) -> None:
    seq.computed = len(seq.tokens) if computed is None else computed
    kv.commit(seq)


A = list(range(1000, 1100))
B = list(range(2000, 2100))


def test_a_released_prefix_is_found_again(make: Make) -> None:
    kv = make()
    first = sequence(0, A[:64])
    assert kv.allocate(first) == 0
    compute(kv, first)
    kv.release(first)
    assert kv.allocate(sequence(1, A[:64] + B[:5])) == 64
    assert kv.allocate(sequence(2, B[:20])) == 0


def test_the_prefix_of_a_running_sequence_is_shared(make: Make) -> None:
    kv = make()
    live = sequence(0, A[:50])
    kv.allocate(live)
    compute(kv, live)
    live.tokens.append(7)
    assert kv.allocate(sequence(1, A[:48] + B[:5])) == 48


def test_the_last_token_always_runs(make: Make) -> None:
    kv = make()
    first = sequence(0, A[:64])
    kv.allocate(first)
    compute(kv, first)
    kv.release(first)
    cached = kv.allocate(sequence(1, A[:64]))
    assert isinstance(cached, int) and 60 <= cached <= 63


def test_a_prefix_that_is_being_computed_is_waited_for(make: Make) -> None:
    kv = make()
    live = sequence(0, A[:60])
    kv.allocate(live)
    assert kv.allocate(sequence(1, A[:60])) is Refusal.WAIT_FOR_PREFIX
    compute(kv, live)
    live.tokens.append(1)
    cached = kv.allocate(sequence(1, A[:60]))
    assert isinstance(cached, int) and 56 <= cached <= 59


def test_what_was_not_computed_or_was_discarded_is_never_found(make: Make) -> None:
    kv = make()
    first, second = sequence(0, A[:64]), sequence(1, B[:64])
    kv.allocate(first)
    compute(kv, first, 48)
    kv.release(first)
    kv.allocate(second)
    compute(kv, second)
    kv.discard(second)
    assert kv.allocate(sequence(2, [*A[:64], 5])) == 48
    assert kv.allocate(sequence(3, [*B[:64], 5])) == 0


def test_without_room_nothing_changes(make: Make) -> None:
    kv = make()
    held = [sequence(i, [i * 10_000 + j for j in range(96)]) for i in range(3)]
    for seq in held:
        assert kv.allocate(seq) == 0
    late = sequence(3, B[:60])
    assert kv.allocate(late) is Refusal.NO_ROOM
    held[0].tokens += B[:33]
    assert not kv.extend(held[0])
    del held[0].tokens[-33:]
    kv.release(held[1])
    assert kv.allocate(late) == 0
    kv.release(held[0])
    kv.release(held[2])
    kv.release(late)


def test_requests_that_ask_for_all_positions_reuse_nothing(make: Make) -> None:
    kv = make()
    first = sequence(0, A[:64])
    kv.allocate(first)
    compute(kv, first)
    kv.release(first)
    scored = Sequence(1, 1, A[:64], GenerationConfig(prompt_logprobs=0), max_tokens=0, seed=0)
    assert kv.allocate(scored) == 0


def test_equal_blocks_are_shared_and_the_rest_is_copied() -> None:
    kv = BlockAllocator(20, 32, 128)
    live = sequence(0, A[:90])
    kv.allocate(live)
    compute(kv, live)
    live.tokens.append(1)
    other = sequence(1, A[:88] + B[:10])
    assert kv.allocate(other) == 88
    assert kv.table_of(other)[:2] == kv.table_of(live)[:2]
    assert kv.pending == [CopyBlock(kv.table_of(live)[2], kv.table_of(other)[2], 24)]
    assert kv.free_blocks == 19 - 3 - 2  # 98 tokens are four blocks, two of them shared


def test_block_zero_is_nobodys() -> None:
    kv = BlockAllocator(5, 16, 128)
    seq = sequence(0, A[:64])
    kv.allocate(seq)
    assert sorted(kv.table_of(seq)) == [1, 2, 3, 4]
    assert kv.max_tokens == 64


def test_beginnings_outlive_what_followed_them() -> None:
    kv = BlockAllocator(7, 16, 96)
    first = sequence(0, A[:64])
    kv.allocate(first)
    compute(kv, first)
    kv.release(first)
    second = sequence(1, B[:64])  # takes the two empty blocks, then the end of the first
    kv.allocate(second)
    kv.release(second)
    assert kv.allocate(sequence(2, A[:64])) == 32


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [4, 16, 32])
def test_random_sequences_always_read_their_own_tokens(seed: int, size: int) -> None:
    """Shared, copied, evicted, preempted, discarded: what a sequence believes to be computed is what its blocks hold."""
    rng = random.Random(seed)
    blocks = 400 // size + 1
    kv = BlockAllocator(blocks, size, 160)
    memory = BlockStorage(kv, blocks, size)
    live: list[Sequence] = []
    beginnings = [[rng.randrange(3) for _ in range(100)] for _ in range(3)]
    reused = 0
    for id in range(600):
        action = rng.random()
        if action < 0.4:
            seq = sequence(id, rng.choice(beginnings)[: rng.randrange(1, 100)] + [rng.randrange(3) for _ in range(rng.randrange(1, 30))])
            cached = kv.allocate(seq)
            memory.apply()
            if not isinstance(cached, Refusal):
                assert cached < len(seq.tokens)
                assert memory.read(seq, cached) == seq.tokens[:cached]
                seq.computed = cached
                reused += cached
                live.append(seq)
        elif live and action < 0.8:
            seq = rng.choice(live)
            if seq.remaining > 1 or (seq.computed and rng.random() < 0.9):
                count = rng.randrange(1, seq.remaining + 1)
                memory.write(seq, seq.computed, seq.computed + count)
                compute(kv, seq, seq.computed + count)
                if seq.computed == len(seq.tokens):
                    seq.tokens.append(rng.randrange(3))
                    if len(seq.tokens) > 160 or not kv.extend(seq):
                        seq.tokens.pop()
                        kv.release(seq)
                        live.remove(seq)
                        continue
            assert memory.read(seq, seq.computed) == seq.tokens[: seq.computed]
        elif live:
            seq = live.pop(rng.randrange(len(live)))
            (kv.discard if action > 0.95 else kv.release)(seq)
        for other in live:
            assert memory.read(other, other.computed) == other.tokens[: other.computed]
    assert reused > 500
    for seq in live:
        kv.release(seq)
    assert kv.free_blocks == blocks - 1
