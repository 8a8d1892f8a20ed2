"""Renders a conversation with a chat template and encodes it so that no text of a message becomes a control token.

Templates only join strings, and a tokenizer would read `<|im_end|>` in a message as the token of that name. So wherever
a message holds the text of a control token, a Unicode noncharacter is put inside it before rendering; it survives
whatever the template does to the text, tells the template's own control tokens from the message's, and goes again
before the text is encoded.

A template that knows tools gets them; for others the model's tool format writes tools, calls and results as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jinja2

from mm_gateway.chat_templates.environment import compile_template
from mm_gateway.chat_templates.tool_formats.format import ToolFormat, arguments_of, call_names, declaration
from mm_gateway.chat_templates.tool_formats.formats import tool_format_of, writes_tools
from mm_gateway.core import Message, Tool
from mm_gateway.errors import ConfigurationError, InvalidRequestError, UnsupportedParameterError

_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class TemplateTokenizer(Protocol):
    """What encoding needs of a tokenizer."""

    control_tokens: Mapping[str, int]
    """Text of every special token -> its id."""

    def encode(self, text: str) -> list[int]:
        """Ids of text in which control tokens are meant; nothing is added in front."""
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text in which nothing is a control token."""
        ...


class ChatEncoder:
    """One model's chat template with its tokenizer.

    Args:
        source: the Jinja template; None: the model has none, and every use is refused.
        tokenizer: encodes.
        variables: what the template finds besides the messages: `bos_token`, `eos_token`…
        stop_strings: end the assistant's turn.
        default_system: for templates that ask for it.
        tool_format: how tools and calls are written; None: what the template shows of it.

    Raises:
        ConfigurationError: the source is no Jinja template.
    """

    def __init__(
        self,
        source: str | None,
        tokenizer: TemplateTokenizer,
        *,
        variables: Mapping[str, str] | None = None,
        stop_strings: tuple[str, ...] = (),
        default_system: str | None = None,
        tool_format: ToolFormat | None = None,
    ) -> None:
        try:
            self._template = compile_template(source) if source is not None else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(f"The chat template is no valid Jinja: line {error.lineno}: {error.message}") from error
        self._knows_developer = source is not None and "developer" in source
        self._writes_tools = source is not None and writes_tools(source)
        self._tool_format = tool_format or tool_format_of(source or "")
        self._tokenizer = tokenizer
        self._variables = {**(variables or {}), "default_system": default_system}
        self.stop_strings = stop_strings
        names = sorted(tokenizer.control_tokens, key=len, reverse=True)  # of two that start alike, the longer one
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        self._beginnings = {name[:length] for name in names for length in range(1, len(name))}

    @property
    def tool_format(self) -> ToolFormat:
        """How this model calls tools.

        Raises:
            UnsupportedParameterError: its template has a format of its own that is not among ours.
        """
        if self._tool_format is None:
            raise UnsupportedParameterError(
                "tools: this model's chat template writes them in a format that the gateway cannot read back. "
                "Set tool_format in its configuration to hermes, llama, react or plain where one of them fits",
                param="tools",
            )
        return self._tool_format

    def begun(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Text with which the assistant's turn has begun already, before it goes on."""
        return self._turns(messages, tools)[1]

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = True) -> str:
        """The conversation as the template writes it.

        Raises:
            InvalidRequestError: the template refuses the conversation, for example for the order of its roles.
            UnsupportedParameterError: as for `tool_format`.
        """
        turns, begun = self._turns(messages, tools)
        return self._render(turns, _declarations(tools), boundary="", add_generation_prompt=add_generation_prompt) + begun

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of the conversation, ready for the assistant's turn; without `add_generation_prompt` that has not begun.

        Raises:
            InvalidRequestError, UnsupportedParameterError: as for `render`.
        """
        turns, begun = self._turns(messages, tools)
        declarations = _declarations(tools)
        boundary, mark = _unused(json.dumps([turns, declarations], ensure_ascii=False))
        turns, declarations = _each_text((turns, declarations), lambda text: self._mark(text, mark))
        rendered = self._render(turns, declarations, boundary=boundary, add_generation_prompt=add_generation_prompt)
        beginning = self._tokenizer.encode_plain(begun) if begun and add_generation_prompt else []
        if mark not in rendered and boundary not in rendered:
            return self._tokenizer.encode(rendered) + beginning
        ids: list[int] = []
        start = 0
        for match in self._control.finditer(rendered) if self._control else ():
            ids += self._encode_plain(rendered[start : match.start()], boundary, mark)
            ids.append(self._tokenizer.control_tokens[match[0]])
            start = match.end()
        return ids + self._encode_plain(rendered[start:], boundary, mark) + beginning

    def _turns(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[dict[str, Any]], str]:
        """The messages as templates want them; calls and results become text where the template knows none."""
        begun = ""
        used = tools or any(message.tool_calls or message.role == "tool" for message in messages)
        if used and not self._writes_tools:
            messages, begun = self.tool_format.flatten(messages, tools)
        names = call_names(messages)
        turns: list[dict[str, Any]] = []
        for message in messages:
            role = "system" if message.role == "developer" and not self._knows_developer else message.role
            turn: dict[str, Any] = {"role": role, "content": message.content}
            if message.name:
                turn["name"] = message.name
            if message.tool_calls:
                turn["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments_of(call)}}
                    for call in message.tool_calls
                ]
            if message.role == "tool":
                turn |= {"tool_call_id": message.tool_call_id, "name": names.get(message.tool_call_id or "", "")}
            turns.append(turn)
        return turns, begun

    def _encode_plain(self, text: str, boundary: str, mark: str) -> list[int]:
        pieces = text.replace(mark, "").split(boundary)
        return [token for piece in pieces if piece for token in self._tokenizer.encode_plain(piece)]

    def _mark(self, text: str, mark: str) -> str:
        if self._control is None:
            return text
        text = self._control.sub(lambda match: match[0][0] + mark + match[0][1:], text)
        # Nor may the end of one text and the beginning of what follows make a control token together.
        if any(text[-length:] in self._beginnings for length in range(1, min(len(text), 40) + 1)):
            text += mark
        return text

    def _render(
        self, turns: list[dict[str, Any]], declarations: list[dict[str, Any]], *, boundary: str, add_generation_prompt: bool
    ) -> str:
        if self._template is None:
            raise InvalidRequestError(
                "This model has no chat template: use /v1/completions, or set chat_template in its configuration", param="messages"
            )
        if declarations and self._writes_tools:
            _ = self.tool_format  # refuses what could not be read back
        try:
            return self._template.render(
                messages=turns,
                boundary=boundary,
                add_generation_prompt=add_generation_prompt,
                tools=declarations if declarations and self._writes_tools else None,
                documents=None,
                **self._variables,
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The model's chat template refuses these messages: {error}", param="messages") from error


def _declarations(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [declaration(tool) for tool in tools]


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of nested lists and mappings with every text in it changed; roles are names, not text."""
    match value:
        case str():
            return change(value)
        case dict():
            return {change(key): item if key in ("role", "type") else _each_text(item, change) for key, item in value.items()}
        case list() | tuple():
            return [_each_text(item, change) for item in value]
        case _:
            return value


def _unused(text: str) -> tuple[str, str]:
    """Two noncharacters that do not occur in the text; Unicode reserves them for use within a program."""
    free = [char for char in _NONCHARACTERS if char not in text]
    if len(free) < 2:
        raise InvalidRequestError("The messages hold too many different Unicode noncharacters (U+FDD0 to U+FDEF)", param="messages")
    return free[0], free[1]
