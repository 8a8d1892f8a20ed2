"""Reply of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from mm_gateway.api.replies.folded import Folded, usage_reply, workflow_event
from mm_gateway.api.replies.logprobs import chat_logprobs
from mm_gateway.api.replies.message_fields import merge_fields
from mm_gateway.api.replies.reply import FINGERPRINT, ChunkedReply, Template
from mm_gateway.core import (
    ChoiceFinished,
    GenerationEvent,
    MessageFields,
    Progress,
    TextDelta,
    ToolCallDelta,
    UrlCitation,
    Usage,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.protocol import Annotation, AssistantMessage, ChatChoice, ChatCompletion, FunctionToolCall, UrlCitationReply

_encode = msgspec.json.Encoder().encode


class ChatReply(ChunkedReply):
    """Reply of `/v1/chat/completions`.

    Args:
        id, created, model: the same in all of it. choices: how many there are. logprobs: whether they were asked for.
        include_usage: whether a stream ends with a chunk of usage.
        stages: whether a stream carries a workflow's stages as `delta.workflow`.
    """

    def __init__(
        self, *, id: str, created: int, model: str, choices: int, logprobs: bool, include_usage: bool, stages: bool = False
    ) -> None:
        self._id, self._created, self._model = id, created, model
        self._choices = choices
        self._logprobs = logprobs
        self.stages = stages
        self._include_usage = include_usage
        self._template = Template(id, "chat.completion.chunk", created, model, with_usage=include_usage)

    def start(self) -> bytes:
        return b"".join(
            self._template.choice(
                b'{"index":%d,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}' % index
            )
            for index in range(self._choices)
        )

    def chunk(self, event: GenerationEvent) -> bytes:
        match event:
            case TextDelta(text="", logprobs=()):
                return b""
            case TextDelta(index=index, text=text, logprobs=tokens):
                logprobs = _encode(chat_logprobs(tokens)) if self._logprobs and tokens else b"null"
                return self._template.choice(
                    b'{"index":%d,"delta":{"content":%b},"logprobs":%b,"finish_reason":null}' % (index, _encode(text), logprobs)
                )
            case ToolCallDelta():
                return self._template.choice(
                    b'{"index":%d,"delta":{"tool_calls":[%b]},"logprobs":null,"finish_reason":null}' % (event.index, _call_delta(event))
                )
            case ChoiceFinished(index=index, finish_reason=reason):
                return self._template.choice(b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":%b}' % (index, _encode(reason)))
            case UrlCitation(index=index):
                return self._template.choice(
                    b'{"index":%d,"delta":{"annotations":[%b]},"logprobs":null,"finish_reason":null}' % (index, _encode(annotation(event)))
                )
            case MessageFields(index=index, fields=fields):
                return self._template.choice(b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":null}' % (index, _encode(fields)))
            case Progress() | WorkflowStep() | WorkflowOutcome() if self.stages:
                return self._template.choice(
                    b'{"index":0,"delta":{"workflow":%b},"logprobs":null,"finish_reason":null}' % _encode(workflow_event(event))
                )
            case Usage() if self._include_usage:
                return self._template.usage(usage_reply(event))
            case _:
                return b""

    def _fold(self, events: Iterable[GenerationEvent]) -> bytes:
        folded = Folded(events, self._choices)
        choices = [
            ChatChoice(
                index,
                _assistant_message("".join(folded.texts[index]), folded.calls(index), folded.citations[index], folded.fields[index]),
                folded.reasons[index],
                chat_logprobs(folded.logprobs[index]) if self._logprobs else None,
            )
            for index in range(self._choices)
        ]
        return _encode(ChatCompletion(self._id, self._created, self._model, choices, folded.usage, FINGERPRINT, folded.workflow))


def _call_delta(event: ToolCallDelta) -> bytes:
    if event.id is None:
        return b'{"index":%d,"function":{"arguments":%b}}' % (event.call, _encode(event.arguments))
    function = {"name": event.name, "arguments": event.arguments}
    return _encode({"index": event.call, "id": event.id, "type": "function", "function": function})


def _assistant_message(
    text: str, calls: list[FunctionToolCall], citations: list[UrlCitation], fields: list[Mapping[str, Any]]
) -> AssistantMessage:
    annotations = [annotation(citation) for citation in citations] if citations else msgspec.UNSET
    message = AssistantMessage(text or None, tool_calls=calls) if calls else AssistantMessage(text, annotations=annotations)
    if not fields:
        return message
    body, more = msgspec.to_builtins(message), merge_fields(fields)
    if others := more.get("annotations"):
        more["annotations"] = body.get("annotations", []) + others
    # Encoded like the type, with fields that it cannot know. A message that is refused, spoken or only thought has no content.
    return cast(AssistantMessage, body | ({} if text else {"content": None}) | more)


def annotation(citation: UrlCitation) -> Annotation:
    return Annotation(UrlCitationReply(citation.start_index, citation.end_index, citation.title, citation.url))
