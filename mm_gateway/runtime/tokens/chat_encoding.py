"""The chat encoder of a tokenizer of transformers."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from mm_gateway.chat_templates.choice import choose_template
from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from mm_gateway.runtime.tokens.response_template import response_formats


def chat_encoder_of(tokenizer: PreTrainedTokenizerBase, architecture: str, config: ModelConfig) -> tuple[ChatEncoder, tuple[str, ...]]:
    """The encoder, and the tokens that end a turn.

    Args:
        architecture: `model_type` of the checkpoint's configuration. config: the model's entry.
    """
    choice = choose_template(config, tokenizer.chat_template, architecture)
    said = response_formats(tokenizer)
    encoder = ChatEncoder(
        choice.source,
        ChatTokenizer(tokenizer),
        variables={name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        stop_strings=choice.stop_strings,
        default_system=choice.default_system,
        tool_format=choice.tool_format or said.tools,
        reasoning_format=choice.reasoning_format or said.reasoning,
    )
    return encoder, choice.stop_tokens
