"""What a checkpoint's files show of its thoughts and calls while it is not loaded. Imports no torch and no transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_gateway.chat_templates.choice import choose_template
from mm_gateway.chat_templates.found_formats import ChatFormats, formats_of
from mm_gateway.chat_templates.prompt import ChatPrompt
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ConfigurationError
from mm_gateway.runtime.checkpoints.context_length import known_folder, read_checkpoint_config


def known_formats(config: ModelConfig) -> ChatFormats | None:
    """The formats of a model that was never loaded, by its chat template alone; None: its files are not here, or more has to be read
    (a GGUF file, what transformers calls a response template)."""
    try:
        folder = known_folder(config)
        if folder is None:
            return None
        architecture = str(read_checkpoint_config(folder).get("model_type", ""))
        tokenizer = _read_json(folder / "tokenizer_config.json")
        if tokenizer.get("response_template") is not None:
            return None
        choice = choose_template(config, _own_template(folder, tokenizer), architecture)
        tokens = {name: token for name in ("bos_token", "eos_token") if (token := _token(tokenizer.get(name))) is not None}
        prompt = ChatPrompt(
            choice.source,
            variables=tokens,
            default_system=choice.default_system,
            tool_format=choice.tool_format,
            reasoning_format=choice.reasoning_format,
        )
        return formats_of(prompt)
    except (OSError, ValueError, TypeError, AttributeError, ConfigurationError):  # what is wrong with it, the load says
        return None


def _own_template(folder: Path, tokenizer: Mapping[str, Any]) -> object:
    """As transformers looks for it: a file of its own first."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = tokenizer.get("chat_template")
    return {entry["name"]: entry["template"] for entry in found} if isinstance(found, list) else found


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _token(value: object) -> str | None:
    """A token as tokenizer_config.json writes it: its text, or with more that is said of it."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None
