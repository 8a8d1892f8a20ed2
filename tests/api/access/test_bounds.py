"""Buckets, capacities and measured pace, without HTTP and with a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_gateway.api.access.capacity import Capacity
from mm_gateway.api.access.rate_limits import Budget
from mm_gateway.errors import RateLimitError
from mm_gateway.throughput import Throughput
from mm_gateway.token_bucket import TokenBucket, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


LIMITS = st.integers(1, 10_000)
PAUSES = st.floats(0, 100)


@given(limit=LIMITS, steps=st.lists(st.tuples(PAUSES, st.floats(0, 1)), max_size=40))
def test_no_window_takes_more_than_the_limit_and_what_refills_in_it(limit: int, steps: list[tuple[float, float]]) -> None:
    bucket, now = TokenBucket(limit, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause, share in steps:
        now += pause
        amount = max(1, round(share * limit))
        if bucket.take(amount, now) == 0:
            taken.append((now, amount))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for at, amount in taken[first:]:
            total += amount
            assert total <= limit * (1 + (at - begin) / 60) * (1 + 1e-9)


@given(limit=LIMITS, before=st.lists(st.tuples(PAUSES, st.floats(0, 1)), max_size=10), share=st.floats(0, 1))
def test_the_wait_is_exact(limit: int, before: list[tuple[float, float]], share: float) -> None:
    bucket, now = TokenBucket(limit, 0.0), 0.0
    for pause, part in before:
        now += pause
        bucket.take(max(1, round(part * limit)), now)
    amount = max(1, round(share * limit))
    level = bucket.level(now)
    wait_s = bucket.take(amount, now)
    if wait_s == 0:
        assert bucket.level(now) == pytest.approx(level - amount)
        return
    assert bucket.level(now) == level  # a refusal takes nothing
    assert bucket.level(now + wait_s) == pytest.approx(amount)


@given(limit=LIMITS, corrections=st.lists(st.integers(-20_000, 20_000), max_size=10), pause=PAUSES)
def test_corrections_may_leave_a_debt_but_never_more_than_a_full_bucket(limit: int, corrections: list[int], pause: float) -> None:
    bucket = TokenBucket(limit, 0.0)
    for correction in corrections:
        bucket.correct(correction, 0.0)
        assert bucket.level(0.0) <= limit
    level = bucket.level(0.0)
    assert bucket.level(pause) == pytest.approx(min(limit, level + pause * limit / 60))
    assert bucket.level(pause + bucket.full_in_s(pause)) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.012, "12ms"),
        (0.0001, "1ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (7.66, "7.66s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (90.5, "1m30.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_a_budget_says_what_is_left_and_when_to_come_back() -> None:
    clock = Clock()
    budget = Budget(60, 600, clock)
    await budget.take_request()
    await budget.take_tokens(500)
    with pytest.raises(RateLimitError, match=r"limit 600 tokens per minute, left 100, requested 200. Please try again in 10s") as caught:
        await budget.take_tokens(200)
    assert (caught.value.type, caught.value.retry_after_s) == ("tokens", pytest.approx(10))
    assert dict(budget.headers()) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"100",
        b"x-ratelimit-reset-tokens": b"50s",
    }
    budget.correct_tokens(500, 800)  # it took more than it was thought to
    assert dict(budget.headers())[b"x-ratelimit-remaining-tokens"] == b"0"
    clock.now = 20
    await budget.take_tokens(0)  # the debt of 200 is paid
    with pytest.raises(RateLimitError, match="Request too large") as caught:
        await budget.take_tokens(601)
    assert caught.value.retry_after_s is None


def test_a_gate_refuses_beyond_its_bound_and_tells_the_measured_pace() -> None:
    clock = Clock()
    gate = Capacity(2, "running", clock)
    for _ in range(200):  # one leaves every quarter of a second
        gate.enter()
        clock.now += 0.25
        gate.leave()
        clock.now += 100  # nobody inside: this time counts for nothing
    gate.enter()
    gate.enter()
    with pytest.raises(RateLimitError, match="2 requests are running") as caught:
        gate.enter()
    assert caught.value.retry_after_s == pytest.approx(0.25, rel=0.1)
    clock.now += 60
    with pytest.raises(RateLimitError) as caught:
        gate.enter()
    assert (caught.value.retry_after_s or 0) > 2  # it got slower
    gate.leave()
    gate.enter()


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 30)), max_size=50), st.integers(1, 1000))
def test_an_estimate_is_positive_finite_and_grows_with_what_is_ahead(observed: list[tuple[int, float]], count: int) -> None:
    throughput = Throughput()
    for done, elapsed_s in observed:
        throughput.observe(done, elapsed_s)
    assert 0 < throughput.seconds_for(count) < throughput.seconds_for(count + 1) < float("inf")
    # Seconds per completion never exceed what the half-life can remember.
    assert throughput.seconds_for(1) <= 1 + 20 / 0.693 + 30


def test_an_estimate_follows_a_change_of_pace() -> None:
    throughput = Throughput()
    assert throughput.seconds_for(1) == 1  # nothing is known
    for _ in range(1000):
        throughput.observe(2, 0.1)
    assert throughput.seconds_for(10) == pytest.approx(0.5, rel=0.1)
    for _ in range(100):
        throughput.observe(1, 1.0)
    assert throughput.seconds_for(10) == pytest.approx(10, rel=0.5)
