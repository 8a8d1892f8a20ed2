"""What a chunk of an upstream server's stream says, as events."""

from __future__ import annotations

from mm_gateway.backends.tool_calls import new_call_id
from mm_gateway.backends.upstream.protocol import Choice, Chunk, Function, Logprobs
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, UrlCitation, Usage


def choice_events(choice: Choice) -> list[GenerationEvent]:
    text = choice.delta.content if choice.delta is not None else choice.text
    logprobs = _logprobs(choice.logprobs)
    events: list[GenerationEvent] = [TextDelta(choice.index, text or "", logprobs=logprobs)] if text or logprobs else []
    for annotation in (choice.delta.annotations if choice.delta is not None else None) or ():
        if (cited := annotation.url_citation) is not None:
            events.append(UrlCitation(choice.index, cited.start_index, cited.end_index, cited.title, cited.url))
    for call in (choice.delta.tool_calls if choice.delta is not None else None) or ():
        function = call.function or Function()
        id = (call.id or new_call_id()) if function.name else None  # some servers repeat the id with every piece
        events.append(ToolCallDelta(choice.index, call.index, function.arguments or "", id, function.name or None))
    if choice.finish_reason is not None:
        known: dict[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}
        events.append(ChoiceFinished(choice.index, known.get(choice.finish_reason, "stop")))
    return events


def _logprobs(found: Logprobs | None) -> tuple[TokenLogprob, ...]:
    if found is None:
        return ()
    if found.content is not None:
        return tuple(
            TokenLogprob(
                entry.token,
                _bytes(entry.token, entry.bytes),
                entry.logprob,
                tuple((top.token, _bytes(top.token, top.bytes), top.logprob) for top in entry.top_logprobs or ()),
            )
            for entry in found.content
        )
    tops = found.top_logprobs or [None] * len(found.tokens or ())
    return tuple(
        TokenLogprob(token, _bytes(token, None), logprob, tuple((name, _bytes(name, None), value) for name, value in (top or {}).items()))
        for token, logprob, top in zip(found.tokens or (), found.token_logprobs or (), tops, strict=False)
    )


def _bytes(token: str, given: list[int] | None) -> tuple[int, ...]:
    return tuple(token.encode() if given is None else given)


def usage_of(chunk: Chunk) -> Usage | None:
    usage = chunk.usage
    if usage is None or usage.prompt_tokens is None:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0, cached or 0, reasoning or 0)
