"""A draft model guesses where that pays by what was measured, and no more."""

from __future__ import annotations

import pytest

from mm_gateway.runtime.scheduling.draft_lengths import LONGEST_DRAFT, Acceptance, Costs, DraftPlan


def costs(*, fixed: float, row: float, one_pass: float) -> Costs:
    found = Costs()
    for rows in (1, 2, 4, 8, 3):
        found.add_step(rows, fixed + row * rows)
    found.add_pass(one_pass)
    return found


def lengths(measured: Costs, rates: list[float], *, fixed: int | None = None) -> list[int]:
    """Guesses of each sequence of a step."""
    plan = DraftPlan(measured, len(rates), fixed)
    got, active = [0] * len(rates), list(range(len(rates)))
    for guessed in range(LONGEST_DRAFT + 1):
        active = [active[place] for place in plan.next_pass([rates[index] for index in active], guessed)]
        for index in active:
            got[index] += 1
    assert not active
    return got


def test_what_steps_cost_is_the_line_through_them() -> None:
    assert costs(fixed=10.0, row=0.5, one_pass=1.0).line() == pytest.approx((10.0, 0.5))


def test_steps_of_one_size_say_about_what_a_row_takes() -> None:
    found = Costs()
    assert found.line() is None
    for _ in range(50):
        found.add_step(1, 2.0)
    fixed, row = found.line() or (0, 0)
    assert fixed + row == pytest.approx(2.0) and 0 < row < 0.2


@pytest.mark.parametrize("rates", [[0.95], [0.7], [0.4], [0.9, 0.2], [0.8] * 8])
def test_guesses_are_as_many_as_give_the_most_tokens_a_second(rates: list[float]) -> None:
    fixed, row, one_pass = 10.0, 0.3, 1.2

    def pace(count: int) -> float:
        tokens = sum(sum(rate**length for length in range(count + 1)) for rate in rates)
        return tokens / (fixed + row * len(rates) * (count + 1) + one_pass * count)

    got = lengths(costs(fixed=fixed, row=row, one_pass=one_pass), rates)
    if len(set(rates)) == 1:
        assert got[0] == max(range(LONGEST_DRAFT + 1), key=pace)
    else:
        assert got[0] > got[1]


@pytest.mark.parametrize(("one_pass", "row", "sequences"), [(9.5, 0.1, 1), (1.0, 30.0, 1), (3.0, 2.0, 12)])
def test_nothing_is_guessed_where_it_does_not_pay(one_pass: float, row: float, sequences: int) -> None:
    assert lengths(costs(fixed=10.0, row=row, one_pass=one_pass), [0.7] * sequences) == [0] * sequences


def test_a_fixed_number_is_guessed_whatever_it_costs() -> None:
    assert lengths(costs(fixed=1.0, row=1.0, one_pass=9.0), [0.1, 0.9], fixed=3) == [3, 3]


def test_something_is_tried_before_anything_is_known() -> None:
    assert lengths(Costs(), [0.8]) == [2]


def test_the_rate_follows_what_became_of_guesses_and_hope_comes_back() -> None:
    acceptance = Acceptance()
    for _ in range(50):
        acceptance.learn(4, 0)
    assert acceptance.rate < 0.01
    for _ in range(400):
        acceptance.forget()
    assert 0.6 < acceptance.rate < 0.8
    for _ in range(50):
        acceptance.learn(4, 4)
    assert acceptance.rate > 0.99
