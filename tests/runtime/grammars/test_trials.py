"""Grammars that crash the compiler, or keep it busy, cost their own request: they are tried out in another process first."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError, ModelUnavailableError
from mm_gateway.runtime.grammars import trials
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.trials import GrammarTrials

PERSON = Grammar("json_schema", json.dumps({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}))


def deep_within_limits() -> Grammar:
    """Each reference leads through many objects: within every limit, and too deep for the stack of the compiler."""
    definitions: dict[str, Any] = {"d190": {"type": "string"}}
    for i in range(190):
        link: dict[str, Any] = {"$ref": f"#/$defs/d{i + 1}"}
        for _ in range(45):
            link = {"type": "object", "properties": {"a": link}, "required": ["a"]}
        definitions[f"d{i}"] = link
    return Grammar("json_schema", json.dumps({"$ref": "#/$defs/d0", "$defs": definitions}))


def slow_within_limits() -> Grammar:
    """Optional properties: time grows with their square, in each of several objects."""
    objects = {f"q{i}": {"type": "object", "properties": {f"{i}p{j}": {"type": "string"} for j in range(1000)}} for i in range(9)}
    return Grammar("json_schema", json.dumps({"type": "object", "properties": objects}))


@pytest.fixture
def fresh() -> Iterator[GrammarTrials]:
    fresh = GrammarTrials()
    yield fresh
    fresh.close()


def test_a_grammar_that_crashes_the_compiler_is_refused_and_the_next_one_works(fresh: GrammarTrials) -> None:
    crashing = deep_within_limits()
    check_size(crashing)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=r"response_format cannot be compiled: it is too complex.*SIG") as caught:
            fresh.check(crashing)
        assert caught.value.param == "response_format"
        fresh.check(PERSON)


def test_a_grammar_that_takes_too_long_is_refused_and_the_next_one_works(fresh: GrammarTrials, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = slow_within_limits()
    check_size(slow)
    monkeypatch.setattr(trials, "TIMEOUT_S", 1.0)
    with pytest.raises(InvalidRequestError, match="cannot be compiled: it takes more than 1 s"):
        fresh.check(slow)
    monkeypatch.undo()
    fresh.check(PERSON)


def test_who_waits_too_long_for_a_turn_is_told_to_try_again(fresh: GrammarTrials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(trials, "WAIT_S", 0.1)
    began = fresh._begin(slow_within_limits())
    with pytest.raises(ModelUnavailableError, match="try again") as caught:
        fresh.check(PERSON)
    assert caught.value.retryable and caught.value.retry_after_s
    assert began.exception() is not None


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (Grammar("lark", "start: T\nT: /a/ & /b/", "guided_grammar"), "guided_grammar cannot be compiled: no text fits it"),
        (Grammar("json_schema", '{"type": "unheard-of"}'), "unheard-of"),
        (Grammar("json_schema", "{broken"), "response_format"),
    ],
)
def test_what_is_wrong_with_a_grammar_is_said_each_time(fresh: GrammarTrials, grammar: Grammar, says: str) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=says):
            fresh.check(grammar)


async def test_requests_with_one_grammar_share_its_trial_and_later_ones_need_none(fresh: GrammarTrials) -> None:
    """One that leaves does not take it from the others."""
    leaving = asyncio.create_task(fresh.checked(PERSON))
    staying = [asyncio.create_task(fresh.checked(PERSON)) for _ in range(5)]
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(*staying)
    fresh.close()  # its process is gone, and nobody needs it
    before = threading.active_count()
    await fresh.checked(PERSON)
    assert threading.active_count() <= before
