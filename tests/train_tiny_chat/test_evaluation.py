"""The evaluation: a right answer counts in any model's words, a wrong one does not, and any configured model can be asked."""

from __future__ import annotations

import json

import pytest

from mm_gateway.core import Message
from tools.train_tiny_chat.cases import Case, Reply, all_cases
from tools.train_tiny_chat.evaluate import evaluate, table


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """The first of each skill."""
    found: dict[str, Case] = {}
    for case in all_cases():
        found.setdefault(case.skill, case)
    return found


@pytest.mark.parametrize(
    ("skill", "right", "wrong"),
    [
        ("gateway facts en", "It serves models through an OpenAI-like API", "It is a web server"),
        ("sources by hand", "Its height is 330 metres [1]", "Its height is 330 metres [1][2]"),
        ("sources do not tell", "Sorry, the sources don't say.", "It burned down [1]."),
        ("arithmetic", "3 and 1 make 4.", "4 is what 3 plus 1 makes; or 5"),
        ("says that it does not know", "I have no information about that.", "English."),
        ("follow-ups", "那是苹果", "那是梨"),
    ],
)
def test_an_answer_is_judged_by_what_it_holds(cases: dict[str, Case], skill: str, right: str, wrong: str) -> None:
    assert cases[skill].right(Reply(right, [], "stop"))
    assert not cases[skill].right(Reply(wrong, [], "stop"))


def test_a_tool_call_is_right_whatever_the_order_of_its_arguments(cases: dict[str, Case]) -> None:
    case = cases["tool calls"]
    (name, arguments) = ("mountain_lookup", {"location": "卡兰公司", "code": "couxche_je"})
    assert case.right(Reply("", [(name, json.dumps(arguments))], "tool_calls"))
    assert not case.right(Reply("", [(name, json.dumps(arguments | {"code": "x"}))], "tool_calls"))


def test_a_model_of_the_configuration_is_asked_by_its_name() -> None:
    questions = [
        Case("answered", [Message(role="user", content="Say it")], lambda reply: bool(reply.text)),
        Case("no JSON", [Message(role="user", content="Say it")], lambda reply: json.loads(reply.text) == 7),
        Case("refused", [Message(role="user", content="!mock error=429")], lambda reply: not reply.text.startswith("refused")),
    ]
    scores = evaluate("mock", questions)
    assert {skill: score.right for skill, score in scores.items()} == {"answered": 1, "no JSON": 0, "refused": 0, "stop token": 3}
    assert "| answered | 1 of 1 | 100.0% |" in table(scores)
