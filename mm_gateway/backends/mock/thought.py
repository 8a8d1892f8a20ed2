"""What the mock thinks before it answers: as many tokens as it is told to, within what the request allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mm_gateway.backends.mock.call import MockCalls
from mm_gateway.backends.mock.choice import MockChoice, own_words
from mm_gateway.backends.mock.directives import Directives
from mm_gateway.backends.mock.vectors import word_ids
from mm_gateway.backends.mock.words import words_of
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS
from mm_gateway.chat_templates.reasoning_formats.found import TemplateThoughts
from mm_gateway.core import ChatInput, ChoiceFinished, Effort, GenerationEvent, GenerationRequest, ReasoningDelta
from mm_gateway.errors import InvalidRequestError

_THOUGHTS = TemplateThoughts(REASONING_FORMATS["think"])
"""The mock thinks as a model whose template knows no efforts: each of them is a budget."""


def thought_of(request: GenerationRequest, orders: Directives, scripted: str, budgets: Mapping[Effort, int]) -> list[str] | None:
    """The tokens of a thought; None: nobody told the mock to think.

    Args:
        scripted: what a script has it think. budgets: tokens by effort, as configured.

    Raises:
        InvalidRequestError: it is told to think in a request that is no chat.
    """
    if orders.think is None and not scripted:
        return None
    if not isinstance(request.input, ChatInput):
        raise InvalidRequestError("!mock think=: thoughts come in chats alone", param="prompt")
    budget = _THOUGHTS.budget(request.input.reasoning, budgets)
    if orders.think is None:
        words = list(words_of(scripted))
        return words if budget is None else words[:budget]
    return own_words(request.config, orders.think if budget is None else min(orders.think, budget))


class MockThinking:
    """One choice that thinks before it answers, a token a step.

    Args:
        choice: the answer, with what the thought leaves of the limit. limit: tokens of both, at least 1.
    """

    def __init__(self, choice: MockChoice | MockCalls, thought: Sequence[str], *, limit: int, return_token_ids: bool) -> None:
        self.index = choice.index
        self.finished = False
        self.reasoned = 0
        self._choice = choice
        self._thought = thought
        self._limit = limit
        self._return_token_ids = return_token_ids

    @property
    def generated(self) -> int:
        return self.reasoned + self._choice.generated

    def step(self) -> list[GenerationEvent]:
        """The events of one more token."""
        if self.reasoned == len(self._thought):
            events = self._choice.step()
            self.finished = self._choice.finished
            return events
        word = self._thought[self.reasoned]
        self.reasoned += 1
        events: list[GenerationEvent] = [ReasoningDelta(self.index, word, word_ids([word]) if self._return_token_ids else ())]
        if self.reasoned == self._limit:
            self.finished = True
            events.append(ChoiceFinished(self.index, "length"))
        return events
