"""Which chat template a model's conversations are rendered with: the configured one, the checkpoint's own, or one of its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS
from mm_gateway.chat_templates.templates import BUILT_IN, built_in_for
from mm_gateway.chat_templates.tool_formats.format import ToolFormat
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.model_config import ModelConfig


@dataclass(frozen=True)
class TemplateChoice:
    """A chat template.

    Attributes:
        source: None: there is none. stop_tokens: that end a turn. stop_strings, default_system: as of BuiltInTemplate.
        tool_format: configured, or of a built-in template; reasoning_format: configured; None: what the template shows.
    """

    source: str | None
    stop_tokens: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    default_system: str | None = None
    tool_format: ToolFormat | None = None
    reasoning_format: ReasoningFormat | None = None


def choose_template(config: ModelConfig, own: object, architecture: str) -> TemplateChoice:
    """The template of a model.

    Args:
        config: its entry; `chat_template`, `model_type`, `tool_format` and `reasoning_format` count.
        own: what the checkpoint brings: a template, several by name, or None. architecture: `model_type` of its config.json.

    Raises:
        OSError: the configured file cannot be read.
    """
    given = config.chat_template
    tool_format = TOOL_FORMATS[config.tool_format] if config.tool_format is not None else None
    reasoning_format = REASONING_FORMATS[config.reasoning_format] if config.reasoning_format is not None else None
    by_type = built_in_for(config.model_type, architecture)
    source = Path(given).expanduser().read_text(encoding="utf-8") if given and given not in BUILT_IN else None if given else _own(own)
    if source is not None:
        # Tokens of its type that the checkpoint's own template writes end a turn in it as well.
        stop_tokens = tuple(token for token in (by_type.stop_tokens if by_type else ()) if token in source)
        return TemplateChoice(source, stop_tokens, tool_format=tool_format, reasoning_format=reasoning_format)
    built_in = BUILT_IN[given] if given else by_type
    if built_in is None:
        return TemplateChoice(None, tool_format=tool_format, reasoning_format=reasoning_format)
    return TemplateChoice(
        built_in.source,
        built_in.stop_tokens,
        built_in.stop_strings,
        built_in.default_system,
        tool_format or TOOL_FORMATS[built_in.tool_format],
        reasoning_format,
    )


def _own(template: object) -> str | None:
    if isinstance(template, Mapping):
        template = cast(Mapping[str, Any], template).get("default")
    return template if isinstance(template, str) else None
