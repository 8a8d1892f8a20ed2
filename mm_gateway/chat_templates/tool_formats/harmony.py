"""GPT-OSS's calls: messages in the channel `commentary` to a recipient, `functions.NAME`.

Source: https://cookbook.openai.com/articles/openai-harmony (function calling)

A reply is a chain of messages. Its headers are read where thoughts are (`reasoning_formats/harmony.py`): what is left for the parser begins
with the recipient. A grammar begins behind `<|start|>assistant`, so that it says which message comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mm_gateway.chat_templates.reasoning_formats.harmony import CHANNEL, END, MESSAGE, RECIPIENT, START
from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import PROBE
from mm_gateway.chat_templates.tool_formats.frame import NAME, Place, Spell, quoted
from mm_gateway.chat_templates.tool_formats.framed import JsonCalls
from mm_gateway.core import Tool, ToolUse

_CONSTRAIN, _CALL = "<|constrain|>", "<|call|>"
_OPENING = f"{RECIPIENT.lstrip()}functions."
_COMMENTARY = f"{CHANNEL}commentary"
_FINAL = f"{CHANNEL}final{MESSAGE}"
# The recipient stands in the header before its channel or behind it, and the type of what follows with a mark or without.
_HEADER = re.compile(rf"{re.escape(_OPENING)}{NAME}[^{{]*?{re.escape(MESSAGE)}\s*(?=[{{\[])")


class HarmonyCalls(JsonCalls):
    """A ToolFormat. A reply has one call: its end is one of the tokens that end the reply."""

    def __init__(self) -> None:
        super().__init__(
            "harmony",
            "GPT-OSS",
            "https://cookbook.openai.com/articles/openai-harmony",
            head=(f"{_COMMENTARY}{RECIPIENT}functions.", Place.NAME, f" {_CONSTRAIN}json{MESSAGE}"),
            tail=(_CALL,),
            opening=_OPENING,
        )

    @property
    def literals(self) -> Iterator[str]:
        yield from (*super().literals, START, END)

    def recognizes(self, rendered: str) -> bool:
        probe = rf"{re.escape(_OPENING)}{PROBE.name}[^{{]*?{re.escape(MESSAGE)}\s*{self._probe()}"
        return re.search(probe, rendered) is not None

    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        tools = [tool for tool in use.tools if use.only is None or tool.name == use.only]
        rules = self._argument_rules(tools, spell)
        names = " | ".join(f"{spell(f'{tool.name} {_CONSTRAIN}json{MESSAGE}')} arguments_{i}" for i, tool in enumerate(tools))
        rules += [f"call: {spell(f'{_COMMENTARY}{RECIPIENT}functions.')} ({names}) ({spell(_CALL)})?", "TEXT: /(?s:.+)/"]
        if use.required:
            return "\n".join(["start: call", *rules])
        # What is said before a call is a message of its own in the same channel.
        rules.append(f"before: {spell(f'{_COMMENTARY}{MESSAGE}')} TEXT? {spell(f'{END}{START}assistant')}")
        rules.append(f"final: {spell(_FINAL)} {'TEXT?' if text is None else 'answer'}")
        rules += [f"answer: {text}"] if text is not None else []
        return "\n".join([f"start: {'before? ' if text is None else ''}call | final", *rules])

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        return CallParser(_OPENING, _HEADER, re.compile(re.escape(_CALL)))
