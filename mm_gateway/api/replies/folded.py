"""Events summed up to what a whole reply says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import msgspec

from mm_gateway.api.custom_tools import input_of
from mm_gateway.api.replies.message_fields import merge_choice_fields
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
    TokenLogprob,
    ToolCallDelta,
    UrlCitation,
    Usage,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.protocol import (
    CompletionTokensDetails,
    CustomCall,
    FunctionCall,
    PromptTokensDetails,
    StageUsageReply,
    ToolCallEntry,
    UsageReply,
)


class Folded:
    """Events summed up by choice."""

    def __init__(self, events: Iterable[GenerationEvent], choices: int) -> None:
        self.texts: list[list[str]] = [[] for _ in range(choices)]
        self.thoughts: list[list[str]] = [[] for _ in range(choices)]
        self.logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]
        self.token_ids: list[list[int]] = [[] for _ in range(choices)]
        self.prompts: dict[int, PromptTokens] = {}
        self._calls: list[list[tuple[str, str, list[str]]]] = [[] for _ in range(choices)]
        self.citations: list[list[UrlCitation]] = [[] for _ in range(choices)]
        self.fields: list[list[Mapping[str, Any]]] = [[] for _ in range(choices)]
        self._choice_fields: list[list[Mapping[str, Any]]] = [[] for _ in range(choices)]
        self._reply_fields: dict[str, Any] = {}
        self.workflow: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
        self.reasons = ["stop"] * choices
        self.stop_reasons: list[str | int | None] = [None] * choices
        self.usage = UsageReply()
        for event in events:
            self._add(event)

    def _add(self, event: GenerationEvent) -> None:
        match event:
            case PromptTokens(prompt=prompt):
                self.prompts[prompt] = event
            case TextDelta() | ReasoningDelta():
                self._add_text(event)
            case ToolCallDelta(index=index, id=id, name=name, arguments=arguments):
                if id is not None:
                    self._calls[index].append((id, name or "", []))
                self._calls[index][-1][2].append(arguments)
            case UrlCitation(index=index):
                self.citations[index].append(event)
            case MessageFields(index=index, fields=fields):
                self.fields[index].append(fields)
            case ChoiceFields(index=index, fields=fields):
                self._choice_fields[index].append(fields)
            case ReplyFields(fields=fields):
                self._reply_fields |= fields
            case WorkflowOutcome():
                self.workflow = workflow_outcome(event)
            case ChoiceFinished(index=index, finish_reason=reason):
                self.reasons[index], self.stop_reasons[index] = reason, event.stop_reason
            case Usage():
                self.usage = usage_reply(event)
            case _:
                pass

    def _add_text(self, event: TextDelta | ReasoningDelta) -> None:
        self.token_ids[event.index] += event.token_ids
        if isinstance(event, ReasoningDelta):
            self.thoughts[event.index].append(event.text)
            return
        self.texts[event.index].append(event.text)
        self.logprobs[event.index] += event.logprobs

    def calls(self, index: int, custom: Collection[str] = ()) -> list[ToolCallEntry]:
        """Of one choice. custom: names of the tools that are no functions."""
        return [_call(id, name, "".join(pieces), custom=name in custom) for id, name, pieces in self._calls[index]]

    def choice_fields(self, index: int) -> dict[str, Any]:
        """What a remote server says of a choice beside its message."""
        return merge_choice_fields(self._choice_fields[index])

    def reply_fields(self, fingerprint: str) -> tuple[str, dict[str, Any]]:
        """The remote server's fingerprint, else this one, and what else it says beside the choices."""
        further = dict(self._reply_fields)
        return str(further.pop("system_fingerprint", fingerprint)), further


def usage_reply(usage: Usage) -> UsageReply:
    told = UsageReply(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        PromptTokensDetails(usage.cached_tokens),
        CompletionTokensDetails(
            usage.reasoning_tokens,
            accepted_prediction_tokens=usage.accepted_tokens,
            rejected_prediction_tokens=usage.rejected_tokens,
        ),
        [StageUsageReply(stage.stage, stage.prompt_tokens, stage.completion_tokens) for stage in usage.stages] or msgspec.UNSET,
    )
    # Encoded like the type, with fields that it cannot know.
    return cast(UsageReply, _joined(msgspec.to_builtins(told), usage.further)) if usage.further else told


def _joined(counts: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Objects merged; of what is in both, `further`: our counts of kinds that only the server knows are zeros."""
    joined = dict(counts)
    for name, value in further.items():
        before = joined.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            joined[name] = _joined(cast(Mapping[str, Any], before), cast(Mapping[str, Any], value))
        else:
            joined[name] = value
    return joined


def _call(id: str, name: str, arguments: str, *, custom: bool) -> ToolCallEntry:
    if custom:
        return ToolCallEntry(id, custom=CustomCall(name, input_of(arguments)), type="custom")
    return ToolCallEntry(id, FunctionCall(name, arguments))


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
