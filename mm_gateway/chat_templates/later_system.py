"""System messages behind other turns, as coding agents send them, for templates that have no place for them there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mm_gateway.core import Message

_SYSTEM = ("system", "developer")


def has_later_system(messages: Sequence[Message]) -> bool:
    """Whether a system message stands behind a turn of another role."""
    first = next((index for index, message in enumerate(messages) if message.role not in _SYSTEM), len(messages))
    return any(message.role in _SYSTEM for message in messages[first:])


def later_system_in_user_turns(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the text of each such message at the end of the user's turn before it, else before the one that follows,
    else as a turn of the user: the roles alternate as they did.
    """
    placed: list[Message] = []
    waiting: list[str] = []
    begun = False
    for message in messages:
        if begun and message.role in _SYSTEM:
            if placed[-1].role == "user":
                placed[-1] = _joined(placed[-1], placed[-1].content, message.content)
            else:
                waiting.append(message.content)
            continue
        if waiting:
            if message.role == "user":
                message = _joined(message, *waiting, message.content)
            else:
                placed.append(Message("user", "\n\n".join(waiting)))
            waiting = []
        begun = begun or message.role not in _SYSTEM
        placed.append(message)
    return [*placed, Message("user", "\n\n".join(waiting))] if waiting else placed


def _joined(message: Message, *texts: str) -> Message:
    return msgspec.structs.replace(message, content="\n\n".join(filter(None, texts)))
