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
from typing import Protocol

import msgspec

from mm_gateway.chat_templates.marks import all_texts, each_text, unused_characters, up_to
from mm_gateway.chat_templates.prompt import ChatPrompt, declarations
from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat
from mm_gateway.chat_templates.reasoning_formats.found import TemplateThoughts
from mm_gateway.chat_templates.token_limit import TokenLimit
from mm_gateway.chat_templates.tool_formats.format import ToolFormat
from mm_gateway.chat_templates.tool_formats.frame import quoted
from mm_gateway.core import Message, Reasoning, Rendering, Tool
from mm_gateway.errors import InvalidRequestError

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
        reasoning_format: how thoughts are written; None: what the template shows of it.

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
        reasoning_format: ReasoningFormat | None = None,
    ) -> None:
        self._prompt = ChatPrompt(
            source, variables=variables, default_system=default_system, tool_format=tool_format, reasoning_format=reasoning_format
        )
        self._tokenizer = tokenizer
        self.stop_strings = stop_strings
        names = sorted(tokenizer.control_tokens, key=len, reverse=True)  # of two that start alike, the longer one
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        self._longest_control = max(map(len, names), default=0)
        self._beginnings = {name[:length] for name in names for length in range(1, len(name))}

    @property
    def prompt(self) -> ChatPrompt:
        """What renders, without tokens."""
        return self._prompt

    @property
    def tool_format(self) -> ToolFormat:
        """As of ChatPrompt."""
        return self._prompt.tool_format

    @property
    def thoughts(self) -> TemplateThoughts | None:
        """As of ChatPrompt."""
        return self._prompt.thoughts

    def begun(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Text with which the assistant's turn has begun already, before it goes on."""
        return self._prompt.turns(messages, tools)[1]

    def unused_variables(self, rendering: Rendering) -> tuple[str, ...]:
        """Names of the request's variables that the template has no use for."""
        return tuple(name for name in rendering.variables if name not in self._prompt.known_variables)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The conversation as the template writes it; errors as of `encode`."""
        turns, begun = self._prompt.turns(messages, tools)
        return self._prompt.render(turns, declarations(tools), add_generation_prompt=True) + begun

    def spelled(self, text: str) -> str:
        """A text as a sequence of Lark in which control tokens are named as such."""
        pieces: list[str] = []
        start = 0
        for match in self._control_tokens(text):
            pieces += [quoted(text[start : match.start()])] if match.start() > start else []
            pieces.append(f"<[{self._tokenizer.control_tokens[match[0]]}]>")
            start = match.end()
        return " ".join([*pieces, *([quoted(text[start:])] if start < len(text) or not pieces else [])])

    @property
    def tool_marks(self) -> tuple[str, ...]:
        """Control tokens that calls are written with: in the text of a reply they have to be there."""
        return tuple(dict.fromkeys(match[0] for literal in self.tool_format.literals for match in self._control_tokens(literal)))

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
            InvalidRequestError: the template refuses the conversation, for example for the order of its roles, has no use for documents,
                or does not end the last message where it ends; a variable has the name of one of ours.
            UnsupportedParameterError: as of ChatPrompt's `tool_format`.
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
        turns, begun = self._prompt.turns(messages, tools)
        declared = declarations(tools)
        variables = self._prompt.variables_of(rendering, reasoning)
        boundary, mark, end = unused_characters(list(all_texts((turns, declared, variables))))
        if rendering.continue_final_message:
            turns, _ = self._prompt.turns([*messages[:-1], _ended(messages[-1], end)], tools)
            if tools and messages[-1].content and not turns[-1]["content"].endswith(end):
                text = "continue_final_message: the tools would be described behind the last message. Let it be the assistant's, to a user"
                raise InvalidRequestError(text, param="continue_final_message")
        begins = rendering.add_generation_prompt and not rendering.continue_final_message
        change = functools.partial(self._mark, mark=mark)
        turns, declared = each_text((turns, declared), change, names=("role", "type"))
        variables = each_text(variables, change)
        rendered = self._prompt.render(turns, declared, variables, boundary=boundary, add_generation_prompt=begins)
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


def _ended(message: Message, end: str) -> Message:
    """A message with a mark where its text ends: of one that has only thought, the thought's."""
    if message.reasoning and not message.content:
        return msgspec.structs.replace(message, reasoning=message.reasoning + end)
    return msgspec.structs.replace(message, content=message.content + end)


def _limited(encode: Callable[[str], list[int]], text: str, limit: TokenLimit | None) -> list[int]:
    return encode(text) if limit is None else limit.encode(encode, text)
