"""Usage is summed up as a sum over plain rows would."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_gateway.storage.database import Place
from mm_gateway.storage.usage_store import DIMENSIONS, UsageStore, Used, UsedFor, read_day, read_dimensions

DAYS = st.sampled_from(["2026-10-31", "2026-11-01", "2026-11-30", "2026-12-01"])
WHAT = st.builds(UsedFor, st.sampled_from(["", "a", "b'\"; --"]), DAYS, st.sampled_from(["m", "n"]), st.sampled_from(["/v1/x", "/v1/y"]))
MUCH = st.builds(Used, *[st.integers(0, 2**40)] * 5, st.integers(0, 1000).map(lambda n: n / 8))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(WHAT, MUCH), max_size=12),
    st.lists(st.sampled_from(DIMENSIONS), unique=True),
    st.fixed_dictionaries({}, optional={"start": DAYS, "end": DAYS, "key": st.sampled_from(["", "a", "z"]), "model": st.just("m")}),
)
def test_reports_sum_up_what_was_added(
    place: Place, rows: list[tuple[UsedFor, Used]], group_by: list[Any], filters: dict[str, str]
) -> None:
    store = UsageStore(place)
    with store._database.writing("") as connection:
        connection.execute("DELETE FROM usage")
    expected: dict[tuple[str, ...], Used] = defaultdict(Used)
    for what, much in rows:
        store.add({what: much})
        fields = {**msgspec.structs.asdict(what), "month": what.day[:7]}
        wanted = all(fields[name] == value for name, value in filters.items() if name in fields)
        if wanted and filters.get("start", "") <= what.day <= filters.get("end", "9"):
            expected[tuple(fields[name] for name in group_by)].add(much)
    found = store.report(group_by, **filters)
    assert [tuple(getattr(row, name) for name in group_by) for row in found] == sorted(expected)
    for row in found:
        much = expected[tuple(getattr(row, name) for name in group_by)]
        assert all(getattr(row, name) == getattr(much, name) for name in Used.__struct_fields__)
        assert all(getattr(row, name) is None for name in DIMENSIONS if name not in group_by)
    by_day = store.by_day(["a", "z"], "2026-11-01")
    assert by_day["z"] == {}
    assert sum(much.tokens for much in by_day["a"].values()) == sum(
        much.tokens for what, much in rows if what.key == "a" and what.day >= "2026-11-01"
    )
    store.close()


def used_on(store: UsageStore, *days: date) -> None:
    for day in days:
        store.add({UsedFor("k", day.isoformat(), "m", "/e"): Used(requests=1)})


def test_what_is_older_than_is_kept_goes(place: Place) -> None:
    store, today = UsageStore(place), date(2026, 11, 29)
    used_on(store, *(today - timedelta(days=ago) for ago in range(40)))
    store.delete_older(30, today.isoformat())
    assert {row.day for row in store.report(["day"])} == {(today - timedelta(days=ago)).isoformat() for ago in range(31)}
    store.close()


def test_a_clock_that_is_years_ahead_makes_nothing_old(place: Place) -> None:
    store, today = UsageStore(place), date(2026, 11, 29)
    used_on(store, *(today - timedelta(days=ago) for ago in range(40)))
    for day in range(5):  # it is used meanwhile
        ahead = date(2031, 1, 1) + timedelta(days=day)
        used_on(store, ahead)
        store.delete_older(60, ahead.isoformat())
    assert sum(row.requests for row in store.report([], end="2030-01-01")) == 40
    store.delete_older(30, today.isoformat())  # it is right again
    assert min(row.day or "" for row in store.report(["day"])) == "2026-10-30"
    store.close()


@pytest.mark.parametrize("text", ["2026-13-01", "", "now", "2026", "1"])
def test_what_is_no_day_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no day such as"):
        read_day(text)


@pytest.mark.parametrize("text", ["week", "day,day", "day;key"])
def test_what_cannot_be_grouped_by_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="must be of day, month, key, model, endpoint"):
        read_dimensions(text)


@pytest.mark.parametrize("text", ["\0", "one\0", "\udcff"])
def test_what_no_database_can_hold_was_used_by_nobody(place: Place, text: str) -> None:
    store = UsageStore(place)
    used_on(store, date(2026, 11, 29))
    for by in ({"key": text}, {"model": text}, {"endpoint": text}):
        assert store.report(["key", "model"], **by) == [] == store.report([], **by)
    assert len(store.report([])) == 1
    store.close()
