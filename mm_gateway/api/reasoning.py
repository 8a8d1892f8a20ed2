"""From the fields of a body that control thoughts to what a model is told."""

from __future__ import annotations

from typing import TypeVar

from mm_gateway.core import Effort, Reasoning
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest, TokenizeRequest
from mm_gateway.protocol.response_request import ResponseRequest

Value = TypeVar("Value")


def chat_reasoning(body: ChatCompletionRequest | TokenizeRequest) -> Reasoning:
    """What a chat body says of thoughts.

    Raises:
        InvalidRequestError: two of its fields contradict each other.
    """
    given = body.reasoning
    efforts: list[tuple[str, Effort | None]] = [("reasoning_effort", body.reasoning_effort)]
    budgets = _budgets(body)
    if given is not None:
        efforts.append(("reasoning.effort", given.effort))
        efforts.append(("reasoning.enabled", "none" if given.enabled is False else None))
        budgets.append(("reasoning.max_tokens", given.max_tokens))
    return _reasoning(efforts, budgets)


def response_reasoning(body: ResponseRequest) -> Reasoning:
    """The same of a body of `/v1/responses`."""
    return _reasoning([("reasoning.effort", body.reasoning.effort if body.reasoning is not None else None)], _budgets(body))


def tells_thoughts(body: ChatCompletionRequest) -> bool:
    """Whether the reply is to hold them."""
    return body.include_reasoning is not False and not (body.reasoning is not None and body.reasoning.exclude)


def _budgets(body: ChatCompletionRequest | TokenizeRequest | ResponseRequest) -> list[tuple[str, int | None]]:
    budget = body.thinking_token_budget
    return [("thinking_budget", body.thinking_budget), ("thinking_token_budget", None if budget == -1 else budget)]


def _reasoning(efforts: list[tuple[str, Effort | None]], budgets: list[tuple[str, int | None]]) -> Reasoning:
    param, effort = _only(efforts)
    budget_param, budget = _only(budgets)
    return Reasoning(effort=effort, thinking_budget=budget, param=param, budget_param=budget_param)


def _only(given: list[tuple[str, Value | None]]) -> tuple[str, Value | None]:
    """The one value among fields that mean the same, with its name."""
    found = [(name, value) for name, value in given if value is not None]
    for name, value in found[1:]:
        if value != found[0][1]:
            raise InvalidRequestError(f"{found[0][0]} and {name} contradict each other; give one of them", param=name)
    return found[0] if found else given[0]
