"""Renders a conversation with a chat template and encodes it so that no text of a message becomes a control token.

Templates only join strings, and a tokenizer would read `<|im_end|>` in a message as the token of that name. So wherever
a message holds the text of a control token, a Unicode noncharacter is put inside it before rendering; it survives
whatever the template does to the text, tells the template's own control tokens from the message's, and goes again
before the text is encoded.

A template that knows tools gets them; for others the model's tool format writes tools, calls and results as text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jinja2
import msgspec

from mm_gateway.chat_templates.environment import OURS, ChatTemplate
from mm_gateway.chat_templates.marks import all_texts, each_text, unused_characters, up_to
from mm_gateway.chat_templates.reasoning_formats.found import TemplateThoughts, find_thoughts
from mm_gateway.chat_templates.token_limit import TokenLimit
from mm_gateway.chat_templates.tool_formats.format import ToolFormat, arguments_of, call_names, declaration, in_first_user_turn
from mm_gateway.chat_templates.tool_formats.formats import tool_format_of, writes_tools
from mm_gateway.core import Message, Reasoning, Rendering, Tool
from mm_gateway.errors import ConfigurationError, InvalidRequestError, UnsupportedParameterError

_WINDOW = 32 << 10  # characters
_PLAIN = Rendering()
_AS_IT_DOES = Reasoning()


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

    def in_front(self) -> list[int]:
        """Ids that the tokenizer puts in front of a text of its own accord (BOS)."""
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
        reasoning_format: name of how thoughts are written; None: what the template shows of it.

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
        reasoning_format: str | None = None,
    ) -> None:
        try:
            self._template = ChatTemplate(source) if source is not None else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(f"The chat template is no valid Jinja: line {error.lineno}: {error.message}") from error
        except Exception as error:  # nested deeper than Jinja or Python can compile
            raise ConfigurationError(f"The chat template cannot be compiled: {type(error).__name__}: {str(error)[:200]}") from error
        self._knows_developer = source is not None and "developer" in source
        self._writes_tools = source is not None and writes_tools(source)
        self._tool_format = tool_format or tool_format_of(source or "")
        self._reasoning_format = reasoning_format
        self._tokenizer = tokenizer
        self._variables = {**(variables or {}), "default_system": default_system}
        self.stop_strings = stop_strings
        names = sorted(tokenizer.control_tokens, key=len, reverse=True)  # of two that start alike, the longer one
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        self._longest_control = max(map(len, names), default=0)
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

    @functools.cached_property
    def thoughts(self) -> TemplateThoughts | None:
        """How this model thinks before it answers; None: it does not, as far as its template shows."""
        if self._template is None:
            return None

        def render(turns: list[dict[str, Any]], variables: Mapping[str, Any], begins: bool) -> str:
            return self._render(turns, [], dict(variables), boundary="", add_generation_prompt=begins)

        return find_thoughts(render, self._template.variables, configured=self._reasoning_format)

    def begun(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Text with which the assistant's turn has begun already, before it goes on."""
        return self._turns(messages, tools)[1]

    def unused_variables(self, rendering: Rendering) -> tuple[str, ...]:
        """Names of the request's variables that the template has no use for."""
        known: frozenset[str] = self._template.variables if self._template is not None else frozenset()
        return tuple(name for name in rendering.variables if name not in known)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The conversation as the template writes it.

        Raises:
            InvalidRequestError: the template refuses the conversation, for example for the order of its roles.
            UnsupportedParameterError: as for `tool_format`.
        """
        turns, begun = self._turns(messages, tools)
        return self._render(turns, _declarations(tools), {}, boundary="", add_generation_prompt=True) + begun

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        rendering: Rendering = _PLAIN,
        reasoning: Reasoning = _AS_IT_DOES,
        limit: TokenLimit | None = None,
    ) -> list[int]:
        """Token ids of the conversation, ready for the assistant's turn or for what `rendering` says.

        Args:
            reasoning: what the template is told of it; variables of the request's own go before.
            limit: how long it may be; None: whatever it is.

        Raises:
            InvalidRequestError, UnsupportedParameterError: as for `render`; a variable has the name of one of ours; the template has no
                use for documents, or does not end the last message where it ends.
            ContextLengthExceededError: it is longer than the limit.
        """
        if limit is not None:
            limit.check_bytes([message.content for message in messages])
        try:
            ids = self._encode(messages, tools, rendering, reasoning, limit)
        except RecursionError:
            raise InvalidRequestError("The messages or tools hold JSON that is nested too deeply", param="messages") from None
        front = self._tokenizer.in_front() if rendering.add_special_tokens else []
        return ids if ids[: len(front)] == front else front + ids

    def _encode(
        self, messages: Sequence[Message], tools: Sequence[Tool], rendering: Rendering, reasoning: Reasoning, limit: TokenLimit | None
    ) -> list[int]:
        turns, begun = self._turns(messages, tools)
        declarations = _declarations(tools)
        variables = self._variables_of(rendering, reasoning)
        boundary, mark, end = unused_characters(list(all_texts((turns, declarations, variables))))
        if rendering.continue_final_message:
            turns, _ = self._turns([*messages[:-1], _ended(messages[-1], end)], tools)
        begins = rendering.add_generation_prompt and not rendering.continue_final_message
        change = functools.partial(self._mark, mark=mark)
        turns, declarations = each_text((turns, declarations), change, names=("role", "type"))
        variables = each_text(variables, change)
        rendered = self._render(turns, declarations, variables, boundary=boundary, add_generation_prompt=begins)
        if rendering.continue_final_message:
            rendered = up_to(rendered, end)
        beginning = self._tokenizer.encode_plain(begun) if begun and begins else []
        if mark not in rendered and boundary not in rendered:
            return _limited(self._tokenizer.encode, rendered, limit) + beginning
        ids: list[int] = []
        start = 0
        for match in self._control_tokens(rendered):
            ids += self._encode_plain(rendered[start : match.start()], boundary, mark, limit)
            ids.append(self._tokenizer.control_tokens[match[0]])
            start = match.end()
            if limit is not None:
                limit.check(ids)
        return ids + self._encode_plain(rendered[start:], boundary, mark, limit) + beginning

    def _variables_of(self, rendering: Rendering, reasoning: Reasoning) -> dict[str, Any]:
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
        told = self.thoughts.variables(reasoning) if reasoning != _AS_IT_DOES and self.thoughts is not None else {}
        return {**told, **used, "documents": [dict(document) for document in rendering.documents] or None}

    def _turns(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[dict[str, Any]], str]:
        """The messages as templates want them; calls and results become text where the template knows none."""
        begun = ""
        used = tools or any(message.tool_calls or message.role == "tool" for message in messages)
        if used and not self._writes_tools:
            described, begun = self.tool_format.flatten(messages, tools)
            # A system message that the client did not send must not be what its request is refused for.
            ours = len(described) > 0 and described[0].role == "system" and not (messages and messages[0].role in ("system", "developer"))
            messages = in_first_user_turn(described) if ours and self._refuses_system else described
        names = call_names(messages)
        turns: list[dict[str, Any]] = []
        for message in messages:
            role = "system" if message.role == "developer" and not self._knows_developer else message.role
            turn: dict[str, Any] = {"role": role, "content": message.content}
            if message.reasoning and self.thoughts is not None:
                turn |= self.thoughts.turn(message.reasoning, message.content)
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

    @functools.cached_property
    def _refuses_system(self) -> bool:
        """Whether the template has no place for a system message, as Gemma's."""
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        try:
            self._render(turns, [], {}, boundary="", add_generation_prompt=True)
        except InvalidRequestError:
            return True
        return False

    def _encode_plain(self, text: str, boundary: str, mark: str, limit: TokenLimit | None) -> list[int]:
        pieces = text.replace(mark, "").split(boundary)
        return [token for piece in pieces if piece for token in _limited(self._tokenizer.encode_plain, piece, limit)]

    def _control_tokens(self, text: str) -> Iterator[re.Match[str]]:
        """Control tokens in a text, searched window by window: a search lets no other thread run before it has found something."""
        at = 0
        while self._control is not None and at < len(text):
            end = at + _WINDOW
            match = self._control.search(text, at, end + self._longest_control)
            if match is not None and match.start() < end:
                yield match
                at = match.end()
            else:
                at = end

    def _mark(self, text: str, mark: str) -> str:
        pieces: list[str] = []
        start = 0
        for match in self._control_tokens(text):
            pieces.append(f"{text[start : match.start() + 1]}{mark}")
            start = match.start() + 1
        text = "".join([*pieces, text[start:]])
        # Nor may the end of one text and the beginning of what follows make a control token together.
        if any(text[-length:] in self._beginnings for length in range(1, min(len(text), 40) + 1)):
            text += mark
        return text

    def _render(
        self,
        turns: list[dict[str, Any]],
        declarations: list[dict[str, Any]],
        variables: dict[str, Any],
        *,
        boundary: str,
        add_generation_prompt: bool,
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
                **{"documents": None, **self._variables, **variables},
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The model's chat template refuses these messages: {error}", param="messages") from error
        except Exception as error:  # whatever a template does, it is no failure of the gateway
            found = f"{type(error).__name__}: {str(error)[:200]}"
            raise InvalidRequestError(f"The model's chat template fails for these messages: {found}", param="messages") from error


def _ended(message: Message, end: str) -> Message:
    """A message with a mark where its text ends: of one that has only thought, the thought's."""
    if message.reasoning and not message.content:
        return msgspec.structs.replace(message, reasoning=message.reasoning + end)
    return msgspec.structs.replace(message, content=message.content + end)


def _declarations(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [declaration(tool) for tool in tools]


def _limited(encode: Callable[[str], list[int]], text: str, limit: TokenLimit | None) -> list[int]:
    return encode(text) if limit is None else limit.encode(encode, text)
