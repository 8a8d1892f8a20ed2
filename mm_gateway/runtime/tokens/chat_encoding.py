"""Which chat template a tokenizer's conversations are rendered with: the configured one, the checkpoint's own, or one of its type."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.templates import BUILT_IN, built_in_for
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.settings import ModelType, ReasoningFormatName, ToolFormatName
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer


def chat_encoder_of(
    tokenizer: PreTrainedTokenizerBase,
    architecture: str,
    *,
    model_type: ModelType | None = None,
    chat_template: str | None = None,
    tool_format: ToolFormatName | None = None,
    reasoning_format: ReasoningFormatName | None = None,
) -> tuple[ChatEncoder, tuple[str, ...]]:
    """The encoder, and the tokens that end a turn.

    Args:
        architecture: `model_type` of the checkpoint's configuration.
        model_type, chat_template, tool_format, reasoning_format: as in `models.yaml`.
    """
    built_in = BUILT_IN.get(chat_template) if chat_template else None
    source = None
    if chat_template and built_in is None:
        source = Path(chat_template).expanduser().read_text(encoding="utf-8")
    elif built_in is None and isinstance(tokenizer.chat_template, str):
        source = tokenizer.chat_template
    elif built_in is None and isinstance(tokenizer.chat_template, dict):
        source = tokenizer.chat_template.get("default")
    by_type = built_in_for(model_type, architecture)
    if source is None:
        built_in = built_in or by_type
    variables = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    chat_tokenizer = ChatTokenizer(tokenizer)
    form = TOOL_FORMATS[tool_format] if tool_format is not None else None
    if built_in is not None:
        encoder = ChatEncoder(
            built_in.source,
            chat_tokenizer,
            variables=variables,
            stop_strings=built_in.stop_strings,
            default_system=built_in.default_system,
            tool_format=form or TOOL_FORMATS[built_in.tool_format],
            reasoning_format=reasoning_format,
        )
        return encoder, built_in.stop_tokens
    # Tokens of its type that the checkpoint's own template writes end a turn in it as well.
    stop_tokens = tuple(token for token in (by_type.stop_tokens if by_type else ()) if source and token in source)
    encoder = ChatEncoder(source, chat_tokenizer, variables=variables, tool_format=form, reasoning_format=reasoning_format)
    return encoder, stop_tokens
