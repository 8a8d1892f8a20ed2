"""Reply of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import msgspec

from mm_gateway.api.custom_tools import InputText
from mm_gateway.api.replies.folded import Folded, usage_reply, workflow_event
from mm_gateway.api.replies.logprobs import chat_logprobs, prompt_logprobs
from mm_gateway.api.replies.message_fields import merge_fields
from mm_gateway.api.replies.reply import FINGERPRINT, ChunkedReply, Template, finish, with_fields
from mm_gateway.api.replies.token_details import RunningUsage, TokenDetails
from mm_gateway.core import (
    ChoiceFields,
    ChoiceFinished,
    GenerationEvent,
    MessageFields,
    Progress,
    PromptTokens,
    ReasoningDelta,
    ReplyFields,
    TextDelta,
    ToolCallDelta,
    UrlCitation,
    Usage,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.protocol import Annotation, AssistantMessage, ChatChoice, ChatCompletion, ToolCallEntry, UrlCitationReply

_encode = msgspec.json.Encoder().encode


class ChatReply(ChunkedReply):
    """Reply of `/v1/chat/completions`.

    Args:
        id, created, model: the same in all of it. choices: how many there are. logprobs: whether they were asked for.
        include_usage: whether a stream ends with a chunk of usage.
        stages: whether a stream carries a workflow's stages as `delta.workflow`. tokens: what is told of them.
        thoughts: whether they are told. custom: names of the tools that are no functions.
    """

    def __init__(
        self,
        *,
        id: str,
        created: int,
        model: str,
        choices: int,
        logprobs: bool,
        include_usage: bool,
        stages: bool = False,
        tokens: TokenDetails | None = None,
        thoughts: bool = True,
        custom: Collection[str] = (),
    ) -> None:
        self._id, self._created, self._model = id, created, model
        self._choices = choices
        self._logprobs = logprobs
        self.stages = stages
        self._include_usage = include_usage
        self._thoughts = thoughts
        self._custom = custom
        self._inputs: dict[tuple[int, int], InputText] = {}  # of calls of custom tools, by choice and call
        self._tokens = tokens or TokenDetails()
        self._usage = RunningUsage() if self._tokens.running_usage else None
        self._begun = False
        self._template = Template(id, "chat.completion.chunk", created, model, with_usage=include_usage)

    def start(self) -> bytes:
        return b"" if self._waits_for_prompt else self._roles()

    def chunk(self, event: GenerationEvent) -> bytes:
        if self._usage is not None:
            self._usage.add(event)
        if self._begun or not self._waits_for_prompt:
            return self._chunk(event)
        self._begun = True
        ids = b',"prompt_token_ids":' + _encode(event.token_ids) if isinstance(event, PromptTokens) and self._tokens.ids else b""
        return self._roles(ids) + self._chunk(event)

    @property
    def _waits_for_prompt(self) -> bool:
        """Whether the first chunk tells of the prompt's tokens, which are not there when a stream begins."""
        return self._tokens.ids or self._usage is not None

    def _chunk(self, event: GenerationEvent) -> bytes:
        match event:
            case TextDelta(text="", token_ids=ids, logprobs=()) if not (ids and self._tokens.ids):
                return b""
            case TextDelta(index=index, text=text, token_ids=ids, logprobs=tokens):
                logprobs = _encode(chat_logprobs(tokens)) if self._logprobs and tokens else b"null"
                return self._choice(index, b'{"content":%b}' % _encode(text), logprobs=logprobs, ids=ids)
            case ReasoningDelta(index=index, text=text, token_ids=ids):
                if not (text and self._thoughts):
                    return self._choice(index, b"{}", ids=ids) if ids and self._tokens.ids else b""
                return self._choice(index, b'{"reasoning_content":%b,"reasoning":%b}' % (thought := _encode(text), thought), ids=ids)
            case ToolCallDelta():
                delta = self._call_delta(event)
                return self._choice(event.index, b'{"tool_calls":[%b]}' % delta) if delta else b""
            case ChoiceFinished(index=index):
                return self._rest_of_inputs(index) + self._choice(index, b"{}", end=event)
            case UrlCitation(index=index):
                return self._choice(index, b'{"annotations":[%b]}' % _encode(annotation(event)))
            case MessageFields(index=index, fields=fields):
                return self._choice(index, _encode(fields))
            case ChoiceFields() | ReplyFields():
                self._template.keep(event)
                return b""
            case Progress() | WorkflowStep() | WorkflowOutcome() if self.stages:
                return self._choice(0, b'{"workflow":%b}' % _encode(workflow_event(event)))
            case Usage() if self._include_usage:
                return self._template.usage(usage_reply(event))
            case _:
                return b""

    def _call_delta(self, event: ToolCallDelta) -> bytes:
        """Empty where it says nothing yet."""
        key = (event.index, event.call)
        if event.id is not None and event.name in self._custom:
            self._inputs[key] = reader = InputText()
            custom = {"name": event.name, "input": reader.feed(event.arguments)}
            return _encode({"index": event.call, "id": event.id, "type": "custom", "custom": custom})
        if (reader := self._inputs.get(key)) is None:
            return _call_delta(event)
        text = reader.feed(event.arguments)
        return _input_delta(event.call, text) if text else b""

    def _rest_of_inputs(self, index: int) -> bytes:
        rest = [(call, reader.end()) for (choice, call), reader in self._inputs.items() if choice == index]
        return b"".join(self._choice(index, b'{"tool_calls":[%b]}' % _input_delta(call, text)) for call, text in rest if text)

    def _roles(self, more: bytes = b"") -> bytes:
        """What each choice begins with. more: further fields of the first chunk."""
        delta = b'{"role":"assistant","content":"","refusal":null}'
        return b"".join(self._choice(index, delta, more=b"" if index else more) for index in range(self._choices))

    def _choice(
        self,
        index: int,
        delta: bytes,
        *,
        logprobs: bytes = b"null",
        end: ChoiceFinished | None = None,
        ids: tuple[int, ...] = (),
        more: bytes = b"",
    ) -> bytes:
        """A chunk with one choice; all but its number are JSON."""
        token_ids = b',"token_ids":' + _encode(ids) if ids and self._tokens.ids else b""
        body = b'"delta":%b,"logprobs":%b,%b%b' % (delta, logprobs, finish(end), token_ids)
        return self._template.choice(index, body, more=more, usage=self._usage)

    def _rest(self) -> bytes:
        return self._template.rest(b'"delta":{},"logprobs":null,"finish_reason":null')

    def _fold(self, events: Iterable[GenerationEvent]) -> bytes:
        folded = Folded(events, self._choices)
        choices = [
            with_fields(
                ChatChoice(
                    index,
                    _assistant_message(
                        "".join(folded.texts[index]),
                        folded.calls(index, self._custom),
                        folded.citations[index],
                        folded.fields[index],
                        "".join(folded.thoughts[index]) if self._thoughts else "",
                    ),
                    folded.reasons[index],
                    chat_logprobs(folded.logprobs[index]) if self._logprobs else None,
                    folded.stop_reasons[index],
                    folded.token_ids[index] if self._tokens.ids else msgspec.UNSET,
                ),
                folded.choice_fields(index),
            )
            for index in range(self._choices)
        ]
        fingerprint, further = folded.reply_fields(FINGERPRINT)
        reply = ChatCompletion(self._id, self._created, self._model, choices, folded.usage, fingerprint, folded.workflow)
        if (prompt := folded.prompts.get(0)) is not None:
            reply.prompt_token_ids = prompt.token_ids if self._tokens.ids else msgspec.UNSET
            reply.prompt_logprobs = prompt_logprobs(prompt) if self._tokens.prompt_logprobs else msgspec.UNSET
        return _encode(with_fields(reply, further))


def _call_delta(event: ToolCallDelta) -> bytes:
    if event.id is None:
        return b'{"index":%d,"function":{"arguments":%b}}' % (event.call, _encode(event.arguments))
    function = {"name": event.name, "arguments": event.arguments}
    return _encode({"index": event.call, "id": event.id, "type": "function", "function": function})


def _input_delta(call: int, text: str) -> bytes:
    return b'{"index":%d,"custom":{"input":%b}}' % (call, _encode(text))


def _assistant_message(
    text: str, calls: list[ToolCallEntry], citations: list[UrlCitation], fields: list[Mapping[str, Any]], thought: str
) -> AssistantMessage:
    annotations = [annotation(citation) for citation in citations] if citations else msgspec.UNSET
    content = text or None if calls or thought else text
    message = AssistantMessage(content, tool_calls=calls) if calls else AssistantMessage(content, annotations=annotations)
    if thought:
        message.reasoning_content = message.reasoning = thought
    if not fields:
        return message
    body, more = msgspec.to_builtins(message), merge_fields(fields)
    if others := more.get("annotations"):
        more["annotations"] = body.get("annotations", []) + others
    for piece in more.pop("tool_calls", ()):
        place = piece.pop("index", 0)
        if "custom" in piece:
            body.setdefault("tool_calls", []).append(piece)
            continue
        for call in body.get("tool_calls", [])[place : place + 1]:
            call |= piece
    # Encoded like the type, with fields that it cannot know. A message that is refused, spoken or only thought has no content.
    return cast(AssistantMessage, body | ({} if text else {"content": None}) | more)


def annotation(citation: UrlCitation) -> Annotation:
    return Annotation(UrlCitationReply(citation.start_index, citation.end_index, citation.title, citation.url))
