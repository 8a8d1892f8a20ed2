"""What a chat template knows of thoughts, found by rendering it: never by the model's name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat, ThoughtPlan
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS
from mm_gateway.core import DEFAULT_BUDGETS, EFFORTS, ChatInput, Effort, Reasoning
from mm_gateway.errors import InvalidRequestError

Turn = dict[str, Any]
Render = Callable[[list[Turn], Mapping[str, Any], bool], str]
"""Turns, variables, whether the assistant's turn is begun; raises InvalidRequestError where the template refuses them."""

_SWITCHES = ("enable_thinking", "thinking", "reasoning")
_EFFORT = "reasoning_effort"
_BUDGET = "thinking_budget"
_QUESTION: Turn = {"role": "user", "content": "Which one?"}
_CALL = {"id": "probe0001", "type": "function", "function": {"name": "probe_call", "arguments": {}}}
_THOUGHT, _ANSWER = "It was the first.", "The first."


def _field(name: str) -> Callable[[str, str], Turn]:
    return lambda thought, content: {"content": content, name: thought}


def _part(thought: Any, content: str) -> Turn:
    return {"content": [{"type": "thinking", "thinking": thought}, {"type": "text", "text": content}]}


_WAYS: dict[str, Callable[[str, str], Turn]] = {
    "reasoning_content": _field("reasoning_content"),
    "reasoning": _field("reasoning"),
    "thinking": _field("thinking"),
    "content parts": _part,
    "content parts with lists": lambda thought, content: _part([{"type": "text", "text": thought}], content),
}
"""How templates want an earlier thought. Most know one of these, and some look at more than one."""


@dataclass(frozen=True)
class TemplateThoughts:
    """What one template knows of thoughts.

    Attributes:
        format: how the model writes them.
        way: how an earlier thought is handed to the template, a key of `_WAYS`; None: it has no use for it.
        switch: variable that turns thoughts on and off. efforts: words that it takes as `reasoning_effort`; empty: it knows none.
        takes_budget: it writes the budget. excludes: of a message with calls it takes a thought or a text, and refuses both.
    """

    format: ReasoningFormat
    way: str | None = None
    switch: str | None = None
    efforts: tuple[Effort, ...] = ()
    takes_budget: bool = False
    excludes: bool = False

    def variables(self, reasoning: Reasoning) -> dict[str, Any]:
        """What the template is told of a request."""
        found: dict[str, Any] = {}
        if self.switch is not None and reasoning.wanted is not None:
            found[self.switch] = reasoning.wanted
        if self.efforts and reasoning.effort is not None and (effort := self._nearest(reasoning.effort)) is not None:
            found[_EFFORT] = effort
        if self.takes_budget and reasoning.thinking_budget is not None:
            found[_BUDGET] = reasoning.thinking_budget
        return found

    def knows(self, effort: Effort) -> bool:
        """Whether an effort makes a difference to the prompt."""
        return self._nearest(effort) is not None

    def plan(self, input: ChatInput, prompt: str, budgets: Mapping[Effort, int]) -> ThoughtPlan:
        """How the replies to a conversation think.

        Args:
            prompt: the end of the rendered conversation, of a few dozen characters at least. budgets: configured ones.
        """
        final = input.messages[-1]
        if not input.rendering.continue_final_message:
            state = self.format.state_after(prompt)
        else:
            state = "thought" if (final.reasoning and not final.content) or self.format.is_open(final.content) else "answer"
        return ThoughtPlan(self.format, state, self.budget(input.reasoning, budgets))

    def budget(self, reasoning: Reasoning, configured: Mapping[Effort, int]) -> int | None:
        """Tokens of thought in each reply; None: no limit."""
        effort = reasoning.effort
        if effort == "none" or reasoning.thinking_budget is not None:
            return 0 if effort == "none" else reasoning.thinking_budget
        if effort is None or effort in configured:
            return configured[effort] if effort is not None else None
        return None if self.knows(effort) else DEFAULT_BUDGETS.get(effort)

    def turn(self, thought: str, content: str, *, calls: bool = False) -> Turn:
        """The fields of an assistant's turn that say what it thought and wrote. calls: it has some."""
        if calls and content and self.excludes:
            thought, content = f"{thought}\n\n{content}", ""
        return {"content": content} if self.way is None else _WAYS[self.way](thought, content)

    def told(self) -> dict[str, Any]:
        """For people: how it writes thoughts, and how they are controlled."""
        controls = [self.switch] if self.switch else []
        controls += [f"{_EFFORT} ({', '.join(self.efforts)})"] if self.efforts else []
        return {"format": self.format.name, "controls": controls, "history": self.way is not None}

    def _nearest(self, effort: Effort) -> Effort | None:
        """The word that the template takes for an effort, the higher one of two that are as near."""
        if effort == "none" or not self.efforts:
            return effort if effort in self.efforts else None
        place = EFFORTS.index(effort)
        words: list[Effort] = [word for word in self.efforts if word != "none"]
        return min(words, key=lambda word: (abs(EFFORTS.index(word) - place), -EFFORTS.index(word)), default=None)


def find_thoughts(render: Render, names: Collection[str], *, configured: ReasoningFormat | None = None) -> TemplateThoughts | None:
    """What a template knows; None: its model does not think, as far as it shows.

    Args:
        names: variables that the template reads. configured: the format, which is not looked for then.
    """
    probe = _Probe(render)
    switch = next((name for name in _SWITCHES if name in names and probe.prompt({name: True}) != probe.prompt({name: False})), None)
    way, shown = _way(probe)
    form = configured or shown or _format(probe, switch)
    if form is None:
        return None
    words: tuple[Effort, ...] = (form.efforts or EFFORTS) if _EFFORT in names else ()
    takes: list[Effort] = [word for word in words if not (word == "none" and switch) and probe.prompt({_EFFORT: word}) is not None]
    changes = len({probe.prompt({_EFFORT: effort}) for effort in takes}) > 1
    return TemplateThoughts(form, way, switch, tuple(takes) if changes else (), _BUDGET in names, _excludes(probe, way))


class _Probe:
    def __init__(self, render: Render) -> None:
        self._render = render

    def prompt(self, variables: Mapping[str, Any]) -> str | None:
        """The prompt of a conversation of one question; None: the template refuses it."""
        return self.rendered([_QUESTION], variables, begins=True)

    def rendered(self, turns: list[Turn], variables: Mapping[str, Any] | None = None, *, begins: bool = False) -> str | None:
        try:
            return self._render(turns, variables or {}, begins)
        except InvalidRequestError:
            return None


def _way(probe: _Probe) -> tuple[str | None, ReasoningFormat | None]:
    """How the template wants an earlier thought, and the format in which it writes that."""
    for way, turn in _WAYS.items():
        rendered = probe.rendered([_QUESTION, {"role": "assistant", **turn(_THOUGHT, _ANSWER)}])
        if rendered is None or _THOUGHT not in rendered or _ANSWER not in rendered:
            continue
        before, _, after = rendered.partition(_THOUGHT)
        form = next((form for form in REASONING_FORMATS.values() if before.rstrip().endswith(form.opening.rstrip())), None)
        if form is not None and after.lstrip().startswith(form.closing):
            return way, form
    return None, None


def _excludes(probe: _Probe, way: str | None) -> bool:
    """Whether the template refuses a message with calls that has a thought and a text, as GPT-OSS's does."""
    if way is None:
        return False

    def is_refused(content: str) -> bool:
        turn = {"role": "assistant", **_WAYS[way](_THOUGHT, content), "tool_calls": [_CALL]}
        return probe.rendered([_QUESTION, turn]) is None

    return is_refused(_ANSWER) and not is_refused("")


def _format(probe: _Probe, switch: str | None) -> ReasoningFormat | None:
    """The format that the template opens or closes a thought in, or that it takes a thought out of a text in."""
    prompts = [prompt for prompt in _prompts(probe, switch) if prompt is not None]
    for form in REASONING_FORMATS.values():
        if any(form.state_after(prompt) != "undecided" for prompt in prompts):
            return form
        if form.turn:
            if any(prompt.endswith(form.turn) for prompt in prompts):
                return form
            continue
        written = f"{form.opening}\n{_THOUGHT}\n{form.closing}\n\n{_ANSWER}"
        history = probe.rendered([_QUESTION, {"role": "assistant", "content": written}, _QUESTION])
        if history is not None and _ANSWER in history and _THOUGHT not in history:
            return form
    return None


def _prompts(probe: _Probe, switch: str | None) -> Iterator[str | None]:
    yield probe.prompt({})
    if switch is not None:
        yield probe.prompt({switch: True})
        yield probe.prompt({switch: False})
