"""The built-in chat templates, and which of them serves a model; adding one is a Jinja file here and a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuiltInTemplate:
    """A template of this package.

    Attributes:
        name: the value of `model_type` or `chat_template`; its file is `<name>.jinja`.
        tool_format: how tools are written and called, see `tool_formats/formats.py`.
        stop_strings: end the assistant's turn, left out of the text.
        stop_tokens: tokens that end it, where the vocabulary has them.
        default_system: system message where the conversation has none.
    """

    name: str
    tool_format: str
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    default_system: str | None = None

    @property
    def source(self) -> str:
        return (Path(__file__).parent / f"{self.name}.jinja").read_text(encoding="utf-8")


BUILT_IN = {
    template.name: template
    for template in (
        BuiltInTemplate(
            "qwen-chat",
            tool_format="react",
            stop_tokens=("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
            default_system="You are a helpful assistant.",
        ),
        BuiltInTemplate("chatml", tool_format="hermes", stop_tokens=("<|im_end|>", "<|endoftext|>")),
        BuiltInTemplate("gpt2", tool_format="plain", stop_strings=("\nUser:", "\nSystem:", "\nAssistant:"), stop_tokens=("<|endoftext|>",)),
        BuiltInTemplate("llama", tool_format="llama", stop_tokens=("</s>",)),
    )
}

_BY_ARCHITECTURE = {"gpt2": "gpt2", "llama": "llama", "qwen": "qwen-chat", "qwen2": "chatml", "qwen3": "chatml"}


def built_in_for(model_type: str | None, architecture: str) -> BuiltInTemplate | None:
    """The template of a checkpoint that has none of its own: by the configured `model_type`, else by the checkpoint's architecture."""
    name = model_type or _BY_ARCHITECTURE.get(architecture)
    return BUILT_IN[name] if name is not None else None
