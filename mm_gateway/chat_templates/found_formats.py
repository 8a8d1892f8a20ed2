"""What is told of the way in which a model writes its thoughts and calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mm_gateway.chat_templates.prompt import ChatPrompt
from mm_gateway.errors import UnsupportedParameterError


@dataclass(frozen=True)
class ChatFormats:
    """What a chat template shows, or its model's configuration says.

    Attributes:
        reasoning: as of TemplateThoughts' `told`; None: no thoughts. tool_format: its name; None: tools are refused.
    """

    reasoning: Mapping[str, Any] | None = None
    tool_format: str | None = None

    def told(self) -> dict[str, object]:
        """As `/v1/models` shows it."""
        return {"reasoning": self.reasoning, "tool_format": self.tool_format}


def formats_of(prompt: ChatPrompt) -> ChatFormats:
    """Renders some conversations with the template, which takes milliseconds."""
    if not prompt.exists:
        return ChatFormats()
    thoughts = prompt.thoughts
    try:
        tool_format = prompt.tool_format.name
    except UnsupportedParameterError:
        tool_format = None
    return ChatFormats(thoughts.told() if thoughts is not None else None, tool_format)
