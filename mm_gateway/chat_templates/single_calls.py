"""For templates that write one call of each message: GPT-OSS's leaves out the others, Llama 3's refuses them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mm_gateway.core import Message


def one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """The conversation with a message for each call, its result behind it. Text and thought stay with the first."""
    found: list[Message] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        if len(message.tool_calls) < 2:
            found.append(message)
            continue
        results: list[Message] = []
        while index < len(messages) and messages[index].role == "tool":
            results.append(messages[index])
            index += 1
        for place, call in enumerate(message.tool_calls):
            own = {} if not place else {"content": "", "reasoning": None}
            found.append(msgspec.structs.replace(message, tool_calls=(call,), **own))
            found += [result for result in results if result.tool_call_id == call.id]
    return found
