"""Fields that say how much a model is to think, and those of its thoughts."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mm_gateway.core import Effort, ThinkingBudget
from mm_gateway.protocol.fields import about, extension

EffortField = Annotated[
    Effort | None,
    about(
        "How much to think before the answer; `none`: not at all. Where the model does not think, it is named in `x-mm-gateway-ignored`. "
        "Default: as the model's template has it.",
        examples=["low"],
    ),
]
BudgetField = Annotated[
    ThinkingBudget | None,
    extension("Tokens of thought at most in each choice; then the thought is closed and the answer begins. Default: by the effort."),
]
TokenBudgetField = Annotated[
    Annotated[int, Meta(ge=-1)] | None, extension("vLLM's name of `thinking_budget`; -1: no limit.", examples=[1024])
]


class ChatReasoning(msgspec.Struct, forbid_unknown_fields=True):
    """OpenRouter's form of `reasoning_effort` and `thinking_budget`."""

    effort: EffortField = None
    max_tokens: BudgetField = None
    enabled: Annotated[bool | None, extension("False: the same as the effort `none`.")] = None
    exclude: Annotated[bool | None, extension("True: leave thoughts out of the reply, though the model thinks.")] = None
