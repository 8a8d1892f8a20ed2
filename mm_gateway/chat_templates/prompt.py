"""A conversation as the text that a chat template writes: turns, tools and calls as the template wants them. Knows no tokens."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from mm_gateway.chat_templates.environment import OURS, ChatTemplate
from mm_gateway.chat_templates.later_system import has_later_system, later_system_in_user_turns
from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat
from mm_gateway.chat_templates.reasoning_formats.found import TemplateThoughts, find_thoughts
from mm_gateway.chat_templates.single_calls import one_call_a_turn
from mm_gateway.chat_templates.tool_formats.format import (
    ToolFormat,
    arguments_of,
    call_names,
    declaration,
    in_first_user_turn,
    write_json,
)
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.chat_templates.tool_formats.probe import WrittenCalls, probe, writes_tools
from mm_gateway.core import Message, Reasoning, Rendering, Tool, ToolCall
from mm_gateway.errors import ConfigurationError, InvalidRequestError, UnsupportedParameterError

Turn = dict[str, Any]


class ChatPrompt:
    """One chat template. A template that knows tools gets them; for others the tool format writes tools, calls and results as text.

    Args and errors: as of ChatEncoder.
    """

    def __init__(
        self,
        source: str | None,
        *,
        variables: Mapping[str, str] | None = None,
        default_system: str | None = None,
        tool_format: ToolFormat | None = None,
        reasoning_format: ReasoningFormat | None = None,
    ) -> None:
        try:
            self._template = ChatTemplate(source) if source is not None else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(f"The chat template is no valid Jinja: line {error.lineno}: {error.message}") from error
        except Exception as error:  # nested deeper than Jinja or Python can compile
            raise ConfigurationError(f"The chat template cannot be compiled: {type(error).__name__}: {str(error)[:200]}") from error
        self._knows_developer = source is not None and "developer" in source
        self._writes_tools = source is not None and writes_tools(source)
        self._source, self._tool_format = source, tool_format
        self._reasoning_format = reasoning_format
        self._variables = {**(variables or {}), "default_system": default_system}

    @property
    def exists(self) -> bool:
        """Whether the model has a chat template at all."""
        return self._template is not None

    @property
    def tool_format(self) -> ToolFormat:
        """How this model calls tools.

        Raises:
            UnsupportedParameterError: its template has a format of its own that is not among ours.
        """
        form = self._tool_format or self._written.form
        if form is None:
            raise UnsupportedParameterError(
                "tools: this model's chat template writes them in a format that the gateway cannot read back. "
                f"Set tool_format in its configuration to one that fits: {', '.join(TOOL_FORMATS)}",
                param="tools",
            )
        return form

    @functools.cached_property
    def _written(self) -> WrittenCalls:
        """How the template wants calls."""
        if not self._writes_tools:
            return WrittenCalls(TOOL_FORMATS["hermes"])
        return probe(self._source or "", self._probed)

    def _probed(self, turns: list[dict[str, Any]], declarations: list[dict[str, Any]]) -> str | None:
        assert self._template is not None
        given = {"documents": None, **self._variables, "boundary": "", "add_generation_prompt": False}
        try:
            return self._template.render(messages=turns, tools=declarations, **given)
        except Exception:  # noqa: BLE001 - whatever a template raises, it is no prompt
            return None

    @functools.cached_property
    def thoughts(self) -> TemplateThoughts | None:
        """How this model thinks before it answers; None: it does not, as far as its template shows."""
        if self._template is None:
            return None

        def render(turns: list[dict[str, Any]], variables: Mapping[str, Any], begins: bool) -> str:
            return self.render(turns, [], dict(variables), add_generation_prompt=begins)

        return find_thoughts(render, self._template.variables, configured=self._reasoning_format)

    @property
    def known_variables(self) -> frozenset[str]:
        """That the template expects from whoever renders it."""
        return self._template.variables if self._template is not None else frozenset()

    def variables_of(self, rendering: Rendering, reasoning: Reasoning) -> dict[str, Any]:
        """What the template finds of the request beside messages and tools."""
        template = self._template
        if template is None:
            return {}  # the rendering is refused
        ours = self._variables.keys() | OURS | template.functions
        for name in rendering.variables:
            if name in ours:
                param = f"chat_template_kwargs.{name[:64]}"
                raise InvalidRequestError(f"{param}: a variable of this name is set by the gateway", param=param)
        if rendering.documents and "documents" not in template.variables:
            raise InvalidRequestError("documents: this model's chat template has no use for documents", param="documents")
        used = {name: value for name, value in rendering.variables.items() if name in template.variables}
        told = self.thoughts.variables(reasoning) if reasoning != Reasoning() and self.thoughts is not None else {}
        return {**told, **used, "documents": [dict(document) for document in rendering.documents] or None}

    def turns(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[list[Turn], str]:
        """The messages as templates want them; calls and results become text where the template knows none.

        Returns:
            The turns, and the text with which the assistant's turn has begun already.
        """
        begun = ""
        if has_later_system(messages) and self._has_no_place_for_later_system:
            messages = later_system_in_user_turns(messages)
        used = tools or any(message.tool_calls or message.role == "tool" for message in messages)
        if used and not self._writes_tools:
            described, begun = self.tool_format.flatten(messages, tools)
            # A system message that the client did not send must not be what its request is refused for.
            ours = len(described) > 0 and described[0].role == "system" and not (messages and messages[0].role in ("system", "developer"))
            messages = in_first_user_turn(described) if ours and self._refuses_system else described
        written = self._written if used else WrittenCalls(None)
        form = self._tool_format or written.form
        if written.one_call:
            messages = one_call_a_turn(messages)
        names, ids = call_names(messages), dict[str, str]()
        turns: list[Turn] = []
        for message in messages:
            role = "system" if message.role == "developer" and not self._knows_developer else message.role
            turn: Turn = {"role": role, "content": message.content}
            if message.reasoning and self.thoughts is not None:
                turn |= self.thoughts.turn(message.reasoning, message.content, calls=bool(message.tool_calls))
            if message.name:
                turn["name"] = message.name
            if message.tool_calls:
                for call in message.tool_calls:
                    ids[call.id] = form.written_id(call.id, call.name, len(ids)) if form is not None else call.id
                turn["tool_calls"] = [_call(call, ids[call.id], as_text=written.arguments_as_text) for call in message.tool_calls]
                if written.no_content and not message.content:
                    turn["content"] = None
            if message.role == "tool":
                call_id = message.tool_call_id or ""
                turn |= {"tool_call_id": ids.get(call_id, call_id), "name": names.get(call_id, "")}
            turns.append(turn)
        return turns, begun

    def render(
        self,
        turns: list[Turn],
        declarations: list[dict[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        boundary: str = "",
        add_generation_prompt: bool,
    ) -> str:
        """Errors as of ChatEncoder's `encode`."""
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
                **{"documents": None, **self._variables, **(variables or {})},
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The model's chat template refuses these messages: {error}", param="messages") from error
        except Exception as error:  # whatever a template does, it is no failure of the gateway
            found = f"{type(error).__name__}: {str(error)[:200]}"
            raise InvalidRequestError(f"The model's chat template fails for these messages: {found}", param="messages") from error

    @functools.cached_property
    def _has_no_place_for_later_system(self) -> bool:
        """Whether the template refuses or leaves out a system message behind another turn, as Mistral's and Gemma's."""
        text = "Be brief."
        turns: list[Turn] = [{"role": "user", "content": "Hello"}, {"role": "system", "content": text}]
        turns += [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
        try:
            return text not in self.render(turns, [], add_generation_prompt=True)
        except InvalidRequestError:
            return True

    @functools.cached_property
    def _refuses_system(self) -> bool:
        """Whether the template has no place for a system message, as Gemma's."""
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        try:
            self.render(turns, [], add_generation_prompt=True)
        except InvalidRequestError:
            return True
        return False


def _call(call: ToolCall, call_id: str, *, as_text: bool) -> dict[str, Any]:
    arguments = arguments_of(call)
    function = {"name": call.name, "arguments": write_json(arguments) if as_text else arguments}
    return {"id": call_id, "type": "function", "function": function}


def declarations(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as templates want them."""
    return [declaration(tool) for tool in tools]
