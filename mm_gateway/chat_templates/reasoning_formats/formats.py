"""Which reasoning formats there are; adding one is a row."""

from __future__ import annotations

import functools

from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat
from mm_gateway.chat_templates.reasoning_formats.harmony import MARKS, HarmonyReader
from mm_gateway.chat_templates.reasoning_formats.tags import TagReader


def tags(name: str, opening: str, closing: str, *, forced: str | None = None) -> ReasoningFormat:
    """A format of thoughts between two literals."""
    return ReasoningFormat(name, opening, closing, forced or closing, functools.partial(TagReader, opening, closing))


REASONING_FORMATS = {
    row.name: row
    for row in (
        # Qwen3, DeepSeek R1, GLM 4.5, MiniMax, Hunyuan, SmolLM3, Nemotron, Kimi K2 Thinking
        tags("think", "<think>", "</think>", forced="\n</think>\n\n"),
        tags("mistral", "[THINK]", "[/THINK]"),
        tags("seed", "<seed:think>", "</seed:think>"),
        tags("kimi", "◁think▷", "◁/think▷"),  # Kimi-VL
        tags("cohere", "<|START_THINKING|>", "<|END_THINKING|>"),
        tags("gemma", "<|channel>thought\n", "<channel|>"),
        ReasoningFormat(  # GPT-OSS
            "harmony",
            opening="<|channel|>analysis<|message|>",
            closing="<|end|>",
            forced="<|end|><|start|>assistant<|channel|>final<|message|>",
            new_reader=HarmonyReader,
            efforts=("low", "medium", "high"),
            turn="<|start|>assistant",
            answer_opening="<|channel|>final<|message|>",
            further_marks=MARKS,
        ),
    )
}
