"""From events to bytes, streamed or folded: one class per endpoint holds all that its two forms of reply have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, cast

import msgspec

import mm_gateway
from mm_gateway.api.errors import http_error
from mm_gateway.api.logprobs import chat_logprobs, completion_logprobs
from mm_gateway.api.message_fields import merge_fields
from mm_gateway.core import (
    ChoiceFinished,
    GenerationEvent,
    MessageFields,
    Progress,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UrlCitation,
    Usage,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.protocol import (
    Annotation,
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    Completion,
    CompletionChoice,
    CompletionTokensDetails,
    FunctionCall,
    FunctionToolCall,
    PromptTokensDetails,
    StageUsageReply,
    UrlCitationReply,
    UsageReply,
)
from mm_gateway.work_pools import BODIES

_encode = msgspec.json.Encoder().encode

FINGERPRINT = f"fp_mm_gateway_{mm_gateway.__version__}"
DONE = b"data: [DONE]\n\n"
_LARGE_REPLY = 64
"""Events, or tokens with log-probabilities, from which on they are encoded on a thread: the event loop serves the others meanwhile."""


def is_large(events: Collection[GenerationEvent]) -> bool:
    """Whether encoding them takes long enough to leave it to a thread."""
    return len(events) > _LARGE_REPLY or sum(len(event.logprobs) for event in events if isinstance(event, TextDelta)) > _LARGE_REPLY


class Reply(Protocol):
    """One request's reply: `start`, `chunk` and `end` for a stream, `fold` for a whole one.

    Attributes:
        stages: streams have chunks for the stages of a workflow, which begin the reply; otherwise stages are comments.
    """

    stages: bool

    def start(self) -> bytes:
        """What a stream begins with, sent with the first event."""
        ...

    def chunk(self, event: GenerationEvent) -> bytes:
        """The server-sent events of one event; empty where it has none."""
        ...

    async def end(self, error: BaseException | None) -> bytes:
        """What a stream ends with, after its last event or the error that broke it off."""
        ...

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        """The whole reply."""
        ...

    def field_for_client(self, path: str) -> str:
        """A path in the words of the endpoint's body; backends use those of chat."""
        ...

    def for_client(self, error: BaseException) -> BaseException:
        """A backend's error, whose `param` is a field of chat or completions, with the field of this endpoint's body."""
        ...


class ChunkedReply(ABC):
    """How streams of chunks end, where replies are folded, and the names of fields, which are those that backends use."""

    stages = False

    def field_for_client(self, path: str) -> str:
        return path

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        return await BODIES.run(self._fold, events) if is_large(events) else self._fold(events)

    @abstractmethod
    def _fold(self, events: Iterable[GenerationEvent]) -> bytes: ...

    async def end(self, error: BaseException | None) -> bytes:
        return DONE if error is None else b"data: " + http_error(error).encode() + b"\n\n" + DONE

    def for_client(self, error: BaseException) -> BaseException:
        return error


class _Template:
    """The bytes around what changes from chunk to chunk, encoded once."""

    def __init__(self, id: str, kind: str, created: int, model: str, *, with_usage: bool) -> None:
        head = {"id": id, "object": kind, "created": created, "model": model, "system_fingerprint": FINGERPRINT}
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if with_usage else b"]}\n\n"

    def choice(self, body: bytes) -> bytes:
        return self._head + body + self._tail

    def usage(self, usage: UsageReply) -> bytes:
        return self._head + b'],"usage":' + _encode(usage) + b"}\n\n"


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
        self._template = _Template(id, "chat.completion.chunk", created, model, with_usage=include_usage)

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
        folded = _Folded(events, self._choices)
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


def workflow_event(event: Progress | WorkflowStep | WorkflowOutcome) -> dict[str, Any]:
    """A workflow's doing as streams carry it: `status` is running, finished or failed for a stage, completed for the whole."""
    match event:
        case Progress(stage=stage, detail=detail, fraction=fraction):
            return {"stage": stage, "status": "running", "detail": detail} | ({} if fraction is None else {"fraction": fraction})
        case WorkflowStep():
            step = event.told()
            return {"stage": step.pop("name"), "status": "finished" if step.pop("success") else "failed", **step}
        case WorkflowOutcome():
            return {"status": "completed", **workflow_outcome(event)}


def workflow_outcome(outcome: WorkflowOutcome) -> dict[str, Any]:
    """The `workflow` object of a whole reply."""
    return {"model": outcome.model, "degraded": outcome.degraded, "steps": [step.told() for step in outcome.steps], **outcome.metadata}


class CompletionReply(ChunkedReply):
    """Reply of `/v1/completions`; arguments as for ChatReply, `logprobs` as in the body."""

    def __init__(self, *, id: str, created: int, model: str, choices: int, logprobs: int | None, include_usage: bool) -> None:
        self._id, self._created, self._model = id, created, model
        self._choices = choices
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._template = _Template(id, "text_completion", created, model, with_usage=include_usage)
        self._offsets = [0] * choices

    def start(self) -> bytes:
        return b""

    def chunk(self, event: GenerationEvent) -> bytes:
        match event:
            case TextDelta(text="", logprobs=()):
                return b""
            case TextDelta(index=index, text=text, logprobs=tokens):
                return self._choice(index, text, tokens, None)
            case ChoiceFinished(index=index, finish_reason=reason):
                return self._choice(index, "", (), reason)
            case Usage() if self._include_usage:
                return self._template.usage(usage_reply(event))
            case _:
                return b""

    def _fold(self, events: Iterable[GenerationEvent]) -> bytes:
        folded = _Folded(events, self._choices)
        choices = [
            CompletionChoice(
                index,
                "".join(folded.texts[index]),
                folded.reasons[index],
                completion_logprobs(folded.logprobs[index], offset=0, top=self._logprobs > 0) if self._logprobs is not None else None,
            )
            for index in range(self._choices)
        ]
        return _encode(Completion(self._id, self._created, self._model, choices, folded.usage, FINGERPRINT))

    def _choice(self, index: int, text: str, tokens: tuple[TokenLogprob, ...], reason: str | None) -> bytes:
        logprobs = b"null"
        if self._logprobs is not None and tokens:
            logprobs = _encode(completion_logprobs(tokens, offset=self._offsets[index], top=self._logprobs > 0))
            self._offsets[index] += sum(token.characters for token in tokens)
        return self._template.choice(
            b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (index, _encode(text), logprobs, _encode(reason))
        )


class _Folded:
    """Events summed up by choice."""

    def __init__(self, events: Iterable[GenerationEvent], choices: int) -> None:
        self.texts: list[list[str]] = [[] for _ in range(choices)]
        self.logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]
        self._calls: list[list[tuple[str, str, list[str]]]] = [[] for _ in range(choices)]
        self.citations: list[list[UrlCitation]] = [[] for _ in range(choices)]
        self.fields: list[list[Mapping[str, Any]]] = [[] for _ in range(choices)]
        self.workflow: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
        self.reasons = ["stop"] * choices
        self.usage = UsageReply()
        for event in events:
            match event:
                case TextDelta(index=index, text=text, logprobs=tokens):
                    self.texts[index].append(text)
                    self.logprobs[index] += tokens
                case ToolCallDelta(index=index, id=id, name=name, arguments=arguments):
                    if id is not None:
                        self._calls[index].append((id, name or "", []))
                    self._calls[index][-1][2].append(arguments)
                case UrlCitation(index=index):
                    self.citations[index].append(event)
                case MessageFields(index=index, fields=fields):
                    self.fields[index].append(fields)
                case WorkflowOutcome():
                    self.workflow = workflow_outcome(event)
                case ChoiceFinished(index=index, finish_reason=reason):
                    self.reasons[index] = reason
                case Usage():
                    self.usage = usage_reply(event)
                case _:
                    pass

    def calls(self, index: int) -> list[FunctionToolCall]:
        """Of one choice."""
        return [FunctionToolCall(id, FunctionCall(name, "".join(pieces))) for id, name, pieces in self._calls[index]]


def usage_reply(usage: Usage) -> UsageReply:
    return UsageReply(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        PromptTokensDetails(usage.cached_tokens),
        CompletionTokensDetails(usage.reasoning_tokens),
        [StageUsageReply(stage.stage, stage.prompt_tokens, stage.completion_tokens) for stage in usage.stages] or msgspec.UNSET,
    )
