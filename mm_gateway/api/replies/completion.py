"""Reply of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mm_gateway.api.replies.folded import Folded, usage_reply
from mm_gateway.api.replies.logprobs import completion_logprobs
from mm_gateway.api.replies.reply import FINGERPRINT, ChunkedReply, Template
from mm_gateway.core import ChoiceFinished, GenerationEvent, TextDelta, TokenLogprob, Usage
from mm_gateway.protocol import Completion, CompletionChoice

_encode = msgspec.json.Encoder().encode


class CompletionReply(ChunkedReply):
    """Reply of `/v1/completions`; arguments as for ChatReply, `logprobs` as in the body."""

    def __init__(self, *, id: str, created: int, model: str, choices: int, logprobs: int | None, include_usage: bool) -> None:
        self._id, self._created, self._model = id, created, model
        self._choices = choices
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._template = Template(id, "text_completion", created, model, with_usage=include_usage)
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
        folded = Folded(events, self._choices)
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
