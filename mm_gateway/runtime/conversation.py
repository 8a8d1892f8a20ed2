"""Conversations: one that a program holds in hand (the guide's API), and those of sessions, which outlive the process.

conv = ConversationManager(model_type="qwen-chat", max_history_tokens=4096, system_prompt="You are helpful.")
conv.add_user_input("Hello!")
result = engine.generate(conv.build_prompt(), config=config)
conv.add_assistant_response(result.text)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.history import turn_starts
from mm_gateway.chat_templates.templates import BUILT_IN
from mm_gateway.configuration.model_config import ModelType
from mm_gateway.configuration.settings import Settings, WorkflowSettings
from mm_gateway.core import Message
from mm_gateway.errors import InvalidRequestError
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.sessions import Session, Sessions
from mm_gateway.text import estimate_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKERS = re.compile(r"<\|\w+\|>|</?s>|\[/?INST\]|<</?SYS>>")
"""What the built-in templates and their tokenizers mean as control."""
_WORD_JOINER = "\u2060"


class ConversationManager:
    """A conversation, and sessions over a store.

    Args:
        model_type: the chat template that `build_prompt` writes.
        max_history_tokens: of the built prompt, >= 1; oldest turns go first, never the system prompt nor the last message.
        system_prompt: said before everything; None: the template's own, where it has one.
        tokenizer: counts tokens; None: they are estimated, one for a Chinese character and one for three others.
        sessions: kept elsewhere; None: in memory, gone with the manager.

    Raises:
        InvalidRequestError: there is no such model_type, or max_history_tokens is not positive.
    """

    def __init__(
        self,
        model_type: ModelType = "chatml",
        max_history_tokens: int = 4096,
        system_prompt: str | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        if model_type not in BUILT_IN:
            raise InvalidRequestError(f"model_type must be one of {', '.join(BUILT_IN)}, got {model_type!r}", param="model_type")
        if max_history_tokens < 1:
            raise InvalidRequestError(f"max_history_tokens must be at least 1, got {max_history_tokens}", param="max_history_tokens")
        self.model_type = model_type
        self.max_history_tokens = max_history_tokens
        self.system_prompt = system_prompt
        self._tokenizer = tokenizer
        template = BUILT_IN[model_type]
        self._encoder = ChatEncoder(
            template.source, _NoTokens(), variables={"bos_token": "", "eos_token": "</s>"}, default_system=template.default_system
        )
        self._sessions = sessions or _sessions_of(WorkflowSettings(), None)
        self._messages: list[Message] = []

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """With the sessions of the gateway; their file is opened at the first use."""
        return cls(sessions=_sessions_of(settings.workflows, settings))

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said, oldest first, without the system prompt."""
        return tuple(self._messages)

    def add_user_input(self, text: str) -> None:
        """The user's next message."""
        self._add(Message(role="user", content=text))

    def add_assistant_response(self, text: str) -> None:
        """The model's answer to it."""
        self._add(Message(role="assistant", content=text))

    def messages(self) -> tuple[Message, ...]:
        """The conversation as a model gets it: the system prompt, and as much of the history as `max_history_tokens` allows."""
        head = [Message(role="system", content=self.system_prompt)] if self.system_prompt is not None else []
        starts = turn_starts(self._messages)
        for start in starts:
            fitting = [*head, *self._messages[start:]]
            if start == starts[-1] or self._count(self._render(fitting)) <= self.max_history_tokens:
                return tuple(fitting)
        return (*head, *self._messages)

    def build_prompt(self) -> str:
        """The conversation as text in the model's template, ready for the assistant's turn.

        The text of a message that reads like a control token is broken by an invisible character, so it stays text.
        """
        return self._render(self.messages())

    def clear(self) -> None:
        """Forget what was said; the system prompt stays."""
        self._messages.clear()

    def session(self, id: str, owner: str = "") -> AbstractAsyncContextManager[Session]:
        """A session by its id, for one request at a time; see `Sessions.session`."""
        return self._sessions.session(id, owner)

    def close(self) -> None:
        """Idempotent."""
        self._sessions.close()

    def _add(self, message: Message) -> None:
        self._messages.append(message)
        # What can never be in a prompt again need not be kept.
        kept = self.messages()
        self._messages = [entry for entry in kept if entry.role != "system"]

    def _render(self, messages: Sequence[Message]) -> str:
        safe = [Message(role=message.role, content=self._broken(message.content)) for message in messages]
        return self._encoder.render(safe) if safe else ""

    def _broken(self, text: str) -> str:
        text = _MARKERS.sub(lambda match: match[0][0] + _WORD_JOINER + match[0][1:], text)
        for token in self._tokenizer.all_special_tokens if self._tokenizer is not None else ():
            if len(token) > 1:
                text = text.replace(token, token[0] + _WORD_JOINER + token[1:])
        return text

    def _count(self, text: str) -> int:
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(text, add_special_tokens=False))
        return estimate_tokens(text)


class _NoTokens:
    """For rendering alone."""

    control_tokens: Mapping[str, int] = {}

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def in_front(self) -> list[int]:
        raise NotImplementedError


def _sessions_of(workflows: WorkflowSettings, settings: Settings | None) -> Sessions:
    place = settings.storage.place("gateway.sqlite") if settings is not None else None

    def open_store() -> RecordStore:
        return RecordStore(place, "session", max_records=workflows.max_sessions, ttl_s=workflows.session_ttl_s)

    return Sessions(open_store, max_turns=workflows.max_session_turns, max_tokens=workflows.max_session_tokens)
