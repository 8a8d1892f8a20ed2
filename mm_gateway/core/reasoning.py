"""How much a model is to think before it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from mm_gateway.core.ranges import check_ranges

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
"""OpenAI's words, from no thought at all to the longest."""
EFFORTS: tuple[Effort, ...] = get_args(Effort)
DEFAULT_BUDGETS: Mapping[Effort, int] = {"minimal": 512, "low": 2048, "medium": 8192}
"""Tokens of thought at most, for a model whose chat template knows no efforts. Others have no limit."""
ThinkingBudget = Annotated[int, Meta(ge=0)]
"""Tokens."""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of the model's thoughts; by itself nothing, and the model does as its chat template has it.

    A model that does not think has no use for it.

    Raises:
        InvalidRequestError: a value is out of range; `param` names the field.
    """

    effort: Effort | None = None
    """`none`: no thought. Others go to a template that knows efforts, and have a budget where the model's configuration gives one."""
    thinking_budget: ThinkingBudget | None = None
    """Tokens of thought in each choice, >= 0; the thought is closed when it has had so many. None: what the effort's is."""
    param: str = "reasoning_effort"
    """The field that gave the effort, to be named where it is left out."""
    budget_param: str = "thinking_budget"
    """The field that gave the budget."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the request that ask for a thought."""
        asked = ((self.effort not in (None, "none"), self.param), (bool(self.thinking_budget), self.budget_param))
        return tuple(name for given, name in asked if given)

    @property
    def wanted(self) -> bool | None:
        """Whether a thought is asked for; None: that is left to the model."""
        if self.effort == "none" or self.thinking_budget == 0:
            return False
        return True if self.effort is not None or self.thinking_budget is not None else None
