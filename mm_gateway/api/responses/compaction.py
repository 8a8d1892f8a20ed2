"""Compaction: a conversation summed up by the model itself, as an item that takes the place of all that was said and done.

It is asked for by an item `compaction_trigger` at the end of an input, as Codex does, or at `/v1/responses/compact`. The model reads the
conversation as in every other turn, the tools included, so that it has the work of earlier turns to build on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from mm_gateway.api.responses.reply import ResponseReply
from mm_gateway.core import GenerationEvent, Message, ToolUse
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import CompactedResponse, Item, MessageItem, OutputItem, ResponseObject
from mm_gateway.work_pools import BODIES

TRIGGER = "compaction_trigger"
ASKED = Message(
    "user",
    "The conversation is to go on without its beginning, so that there is room for more. Write down all that whoever goes on with it has "
    "to know, in place of what was said so far: what the user wants, and what they prefer or ruled out; what was done and found, with the "
    "names, paths, numbers and texts that matter; what was decided and why; what is left to do, and what the next step is. Be brief and "
    "exact. Answer with this summary alone.",
)
"""What the model is asked at the end of the conversation."""


def without_trigger(body: ResponseRequest) -> bool:
    """Whether the body asks for a compaction; the item that does so is taken out of its input."""
    given = body.input
    if not isinstance(given, list) or not given or given[-1].get("type") != TRIGGER:
        return False
    body.input = given[:-1]
    return True


def kept(items: Sequence[Item]) -> list[MessageItem]:
    """What stays of a conversation beside its summary: what users and developers said."""
    return [item for item in items if isinstance(item, MessageItem) and item.role != "assistant"]


def shown(use: ToolUse | None) -> ToolUse | None:
    """Tools that the model is told of as in other turns, and that it does not call."""
    return None if use is None else msgspec.structs.replace(use, required=False, only=None, shown_only=True)


class CompactReply(ResponseReply):
    """Reply of `/v1/responses/compact`. items: of the conversation; other arguments as for ResponseReply, which stores nothing."""

    def __init__(self, response: ResponseObject, items: Sequence[Item], **arguments: Any) -> None:
        super().__init__(response, **arguments, keep=None)
        self._said = kept(items)

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        final = await BODIES.run(self._fold, events)
        if final.incomplete_details is not None:
            raise InvalidRequestError(
                "The summary was cut by the limit of tokens, or by the end of the model's context. Leave out some of the input",
                param="input",
                code="context_length_exceeded",
            )
        assert final.usage is not None
        said: list[OutputItem] = [*self._said]
        return await BODIES.run(
            msgspec.json.encode, CompactedResponse(id=final.id, created_at=final.created_at, output=said + final.output, usage=final.usage)
        )
