"""ReAct: Thought, Action, Action Input, Observation, Final Answer; what Qwen v1 chat models are trained on. One call a turn.

Source: https://arxiv.org/abs/2210.03629, in the wording of https://github.com/QwenLM/Qwen (examples/react_prompt.md)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import (
    ToolFormat,
    arguments_of,
    call_rules,
    write_json,
)
from mm_gateway.chat_templates.tool_formats.frame import Spell, quoted
from mm_gateway.chat_templates.tool_formats.parsed import Parsed, ParsedCall, ParsedText
from mm_gateway.core import Message, Tool, ToolCall, ToolUse
from mm_gateway.text import begun_at_end

_HEADER = re.compile(r"\nAction: (?P<name>[A-Za-z0-9_.-]+)\nAction Input: (?=[{\[])")
_CLOSING = re.compile(r"")
_THOUGHT = "Thought:"
_FINAL = "Final Answer:"
_ACTION = "\nAction: "


class React(ToolFormat):
    name = "react"
    families = "Qwen 1"
    source = "https://arxiv.org/abs/2210.03629"

    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        turns: list[Message] = []
        open_turn = ""  # the assistant's turn goes on after its observations
        for message in messages:
            if message.role == "tool":
                open_turn += f"\nObservation: {message.content}\n{_THOUGHT}"
            elif message.role == "assistant" and (message.tool_calls or open_turn):
                text = "".join(_call(call) for call in message.tool_calls)
                if open_turn:
                    open_turn += f" {message.content}{text}" if text else f" I now know the answer.\n{_FINAL} {message.content}"
                else:
                    open_turn = f"{_THOUGHT} {message.content or 'I need a function for this.'}{text}"
                if not message.tool_calls:
                    turns.append(Message(role="assistant", content=open_turn))
                    open_turn = ""
            else:
                if open_turn:
                    turns.append(Message(role="assistant", content=open_turn))
                    open_turn = ""
                turns.append(message)
        if tools:
            # The description stands before the question that the calls are for.
            last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
            if last < 0:
                turns.append(Message(role="user", content=_describe(tools)))
            else:
                turns[last] = msgspec.structs.replace(turns[last], content=f"{_describe(tools)}\n\nQuestion: {turns[last].content}")
        return turns, open_turn

    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        rules, calls = call_rules(use, lambda tool: f"{tool.name}\nAction Input: ")
        rules.append(f"call: {calls}")
        if use.required:
            return "\n".join(['start: /[^\\n]{0,400}/ "\\nAction: " call', *rules])
        if text is not None:
            # Text and JSON could not be told apart while they are read, so a call has to begin with the word of a thought.
            return "\n".join([f'start: answer | "{_THOUGHT}" /[^\\n]{{0,400}}/ "\\nAction: " call', f"answer: {text}", *rules])
        rules.append('before[suffix="\\nAction: "]: /(?s:.*)/')
        return "\n".join(["start: TEXT | before call", "TEXT: /(?s:.*)/ & ~/(?s:.*)\\nAction: (?s:.*)/", *rules])

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        return CallParser(_ACTION, _HEADER, _CLOSING)

    def parser(self, begun: str = "", tools: Sequence[Tool] = ()) -> ReactParser:
        return ReactParser(self.calls(), thinking=begun.endswith(_THOUGHT))


class ReactParser:
    """A thought becomes the content beside a call; before a final answer it goes, as that is what was thought of.

    A text that begins with no thought is the answer as it stands.

    Args:
        calls: tells calls from thoughts and answers. thinking: the word that begins a thought stands in the prompt already.
    """

    def __init__(self, calls: CallParser, *, thinking: bool) -> None:
        self._calls = calls
        self._held = ""
        self._thinking = True if thinking else None  # None: not known yet

    def feed(self, text: str) -> list[Parsed]:
        return self._sort(self._calls.feed(text))

    def end(self, *, cut: bool = False, required: bool = False) -> list[Parsed]:
        pieces = self._sort(self._calls.end(cut=cut, required=required))
        if cut and self._thinking is not False:
            # What the text would have gone on with is no part of an answer.
            word = _FINAL if self._thinking else _THOUGHT
            begun = begun_at_end(self._held, word)
            if begun > 1 or (begun and required):
                self._held = self._held[:-begun]
        return [*pieces, *self._release()]

    def _sort(self, pieces: Sequence[Parsed]) -> list[Parsed]:
        parsed: list[Parsed] = []
        for piece in pieces:
            if isinstance(piece, ParsedText):
                parsed += self._text(piece.text)
                continue
            if isinstance(piece, ParsedCall):
                parsed += self._release()
            parsed.append(piece)
        return parsed

    def _text(self, text: str) -> list[Parsed]:
        if self._thinking is False:
            return [ParsedText(text)]
        self._held += text
        if self._thinking is None:
            begun = self._held.lstrip()
            if not begun.startswith(_THOUGHT[: len(begun)]):
                return self._release()
            if len(begun) < len(_THOUGHT):
                return []
            self._thinking = True
        _, final, answer = self._held.partition(_FINAL)
        if not final or not answer.strip():
            return []
        self._held, self._thinking = "", False
        return [ParsedText(answer.lstrip())]

    def _release(self) -> list[Parsed]:
        held, self._held = self._held, ""
        if self._thinking:
            held = held.lstrip().removeprefix(_THOUGHT).strip()
            held = held.removesuffix(_FINAL).rstrip()
        self._thinking = False
        return [ParsedText(held)] if held else []


def _describe(tools: Sequence[Tool]) -> str:
    listed = "\n\n".join(
        f"{tool.name}: Call this tool to interact with the {tool.name} API. What is the {tool.name} API useful for? "
        f"{tool.description} Parameters: {write_json(tool.parameters or {})} Format the arguments as a JSON object."
        for tool in tools
    )
    names = ",".join(tool.name for tool in tools)
    return (
        f"Answer the following questions as best you can. You have access to the following APIs:\n\n{listed}\n\n"
        "Use the following format:\n\n"
        "Question: the input question you must answer\n"
        "Thought: you should always think about what to do\n"
        f"Action: the action to take, should be one of [{names}]\n"
        "Action Input: the input to the action\n"
        "Observation: the result of the action\n"
        "... (this Thought/Action/Action Input/Observation can be repeated zero or more times)\n"
        "Thought: I now know the final answer\n"
        "Final Answer: the final answer to the original input question\n\n"
        "Begin!"
    )


def _call(call: ToolCall) -> str:
    return f"\nAction: {call.name}\nAction Input: {write_json(arguments_of(call))}"
