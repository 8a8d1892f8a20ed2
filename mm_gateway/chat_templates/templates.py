"""The built-in chat templates, and which of them serves a model; adding one is a Jinja file here and a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuiltInTemplate:
    """A template of this package.

    Attributes:
        name: the value of `model_type` or `chat_template`; its file is `<name>.jinja`.
        architectures: checkpoints of these (`model_type` of their config.json) get it where they have no template of their own.
        tool_format: how tools are written and called, see `tool_formats/formats.py`.
        stop_strings: end the assistant's turn, left out of the text.
        stop_tokens: tokens that end it, where the vocabulary has them.
        default_system: system message where the conversation has none.
        folder: where its file is.
    """

    name: str
    tool_format: str
    architectures: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    default_system: str | None = None
    folder: Path = Path(__file__).parent

    @property
    def source(self) -> str:
        return (self.folder / f"{self.name}.jinja").read_text(encoding="utf-8")


BUILT_IN = {
    template.name: template
    for template in (
        BuiltInTemplate(
            "qwen-chat",
            tool_format="react",
            architectures=("qwen",),
            stop_tokens=("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
            default_system="You are a helpful assistant.",
        ),
        BuiltInTemplate(
            "chatml",
            tool_format="hermes",
            architectures=("qwen2", "qwen3"),
            stop_tokens=("<|im_end|>", "<|endoftext|>"),
        ),
        BuiltInTemplate(
            "gpt2",
            tool_format="plain",
            architectures=("gpt2",),
            stop_strings=("\nUser:", "\nSystem:", "\nAssistant:"),
            stop_tokens=("<|endoftext|>",),
        ),
        BuiltInTemplate("llama", tool_format="llama", architectures=("llama",), stop_tokens=("</s>",)),
    )
}


def built_in_for(model_type: str | None, architecture: str) -> BuiltInTemplate | None:
    """The template of a checkpoint that has none of its own: by the configured `model_type`, else by the checkpoint's architecture."""
    if model_type is not None:
        return BUILT_IN[model_type]
    return next((template for template in BUILT_IN.values() if architecture in template.architectures), None)
