"""What a remote model says beside its text, as the items that OpenAI has for it."""

from __future__ import annotations

from mm_gateway.core import ChoiceFinished, MessageFields, ReasoningDelta, ReplyFields, TextDelta, Usage
from tests.api.responses.test_streams import stream_of, types, whole
from tests.support.scripted_backend import Step

FILE = {"type": "file_citation", "file_id": "f", "filename": "x", "index": 1}
THOUGHT: list[Step] = [
    ReplyFields({"service_tier": "flex"}),
    ReasoningDelta(0, "H"),
    ReasoningDelta(0, "m"),
    TextDelta(0, "4"),
    MessageFields(0, {"annotations": [FILE]}),
    ChoiceFinished(0, "stop"),
    Usage(3, 2),
]


async def test_what_a_remote_model_thinks_is_an_item_before_its_text() -> None:
    events = await stream_of(THOUGHT)
    assert types(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    final = events[-1]["response"]
    assert final["service_tier"] == "flex"
    thought, message = final["output"]
    assert (thought["type"], thought["content"]) == ("reasoning", [{"type": "reasoning_text", "text": "Hm"}])
    assert (message["content"][0]["text"], message["content"][0]["annotations"]) == ("4", [FILE])
    assert (await whole(THOUGHT))["output"][1]["content"] == message["content"]


async def test_a_refusal_is_a_part_of_its_own() -> None:
    script: list[Step] = [
        MessageFields(0, {"refusal": "I can"}),
        MessageFields(0, {"refusal": "not"}),
        ChoiceFinished(0, "stop"),
        Usage(1, 2),
    ]
    events = await stream_of(script)
    assert types(events)[3:-2] == ["content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done"]
    assert (await whole(script))["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot"}]
