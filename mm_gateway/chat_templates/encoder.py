"""Renders a conversation with a chat template and encodes it so that no text of a message becomes a control token.

Templates only join strings, and a tokenizer would read `<|im_end|>` in a message as the token of that name. So wherever
a message holds the text of a control token, a Unicode noncharacter is put inside it before rendering; it survives
whatever the template does to the text, tells the template's own control tokens from the message's, and goes again
before the text is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import jinja2

from mm_gateway.chat_templates.environment import compile_template
from mm_gateway.core import Message
from mm_gateway.errors import ConfigurationError, InvalidRequestError

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
    ) -> None:
        try:
            self._template = compile_template(source) if source is not None else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(f"The chat template is no valid Jinja: line {error.lineno}: {error.message}") from error
        self._knows_developer = source is not None and "developer" in source
        self._tokenizer = tokenizer
        self._variables = {**(variables or {}), "default_system": default_system}
        self.stop_strings = stop_strings
        names = sorted(tokenizer.control_tokens, key=len, reverse=True)  # of two that start alike, the longer one
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        self._beginnings = {name[:length] for name in names for length in range(1, len(name))}

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as the template writes it.

        Raises:
            InvalidRequestError: the template refuses the conversation, for example for the order of its roles.
        """
        return self._render(messages, boundary="", add_generation_prompt=add_generation_prompt)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation, ready for the assistant's turn.

        Raises:
            InvalidRequestError: as for `render`.
        """
        texts = [text for message in messages for text in (message.content, message.name or "")]
        boundary, mark = _unused(texts)
        marked = [
            Message(role=m.role, content=self._mark(m.content, mark), name=self._mark(m.name, mark) if m.name else None) for m in messages
        ]
        rendered = self._render(marked, boundary=boundary, add_generation_prompt=True)
        if mark not in rendered and boundary not in rendered:
            return self._tokenizer.encode(rendered)
        ids: list[int] = []
        start = 0
        for match in self._control.finditer(rendered) if self._control else ():
            ids += self._encode_plain(rendered[start : match.start()], boundary, mark)
            ids.append(self._tokenizer.control_tokens[match[0]])
            start = match.end()
        return ids + self._encode_plain(rendered[start:], boundary, mark)

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

    def _render(self, messages: Sequence[Message], *, boundary: str, add_generation_prompt: bool) -> str:
        if self._template is None:
            raise InvalidRequestError(
                "This model has no chat template: use /v1/completions, or set chat_template in its configuration", param="messages"
            )
        turns = []
        for message in messages:
            role = "system" if message.role == "developer" and not self._knows_developer else message.role
            turn = {"role": role, "content": message.content}
            turns.append({**turn, "name": message.name} if message.name else turn)
        try:
            return self._template.render(
                messages=turns,
                boundary=boundary,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._variables,
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The model's chat template refuses these messages: {error}", param="messages") from error


def _unused(texts: Sequence[str]) -> tuple[str, str]:
    """Two noncharacters that occur in none of the texts; Unicode reserves them for use within a program."""
    free = [char for char in _NONCHARACTERS if not any(char in text for text in texts)]
    if len(free) < 2:
        raise InvalidRequestError("The messages hold too many different Unicode noncharacters (U+FDD0 to U+FDEF)", param="messages")
    return free[0], free[1]
