"""Which tool format a model uses; adding one is a module here and a row."""

from __future__ import annotations

import re

from mm_gateway.chat_templates.tool_formats.format import ToolFormat
from mm_gateway.chat_templates.tool_formats.hermes import Hermes
from mm_gateway.chat_templates.tool_formats.llama_json import LlamaJson
from mm_gateway.chat_templates.tool_formats.plain import Plain
from mm_gateway.chat_templates.tool_formats.react import React

TOOL_FORMATS: dict[str, ToolFormat] = {tool_format.name: tool_format for tool_format in (Hermes(), React(), LlamaJson(), Plain())}

_WRITES_TOOLS = re.compile(r"\btools\b")


def writes_tools(template: str) -> bool:
    """Whether a chat template puts tools into the prompt by itself."""
    return _WRITES_TOOLS.search(template) is not None


def tool_format_of(template: str) -> ToolFormat | None:
    """The format that a checkpoint's own template teaches; None where it is none of ours.

    A template without tools gets Hermes' format, the most widely trained one, from us.
    """
    if not writes_tools(template):
        return TOOL_FORMATS["hermes"]
    return next((form for form in TOOL_FORMATS.values() if form.taught_by(template)), None)
