"""Reply of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mm_gateway.api.replies.folded import Folded, usage_reply
from mm_gateway.api.replies.logprobs import completion_logprobs, prompt_logprobs
from mm_gateway.api.replies.reply import FINGERPRINT, ChunkedReply, Template, finish, with_fields
from mm_gateway.api.replies.token_details import RunningUsage, TokenDetails
from mm_gateway.core import ChoiceFields, ChoiceFinished, GenerationEvent, PromptTokens, ReplyFields, TextDelta, TokenLogprob, Usage
from mm_gateway.protocol import Completion, CompletionChoice

_encode = msgspec.json.Encoder().encode


class CompletionReply(ChunkedReply):
    """Reply of `/v1/completions`; arguments as for ChatReply, `logprobs` as in the body, `n` choices of each prompt."""

    def __init__(
        self,
        *,
        id: str,
        created: int,
        model: str,
        choices: int,
        logprobs: int | None,
        include_usage: bool,
        n: int = 1,
        tokens: TokenDetails | None = None,
    ) -> None:
        self._id, self._created, self._model = id, created, model
        self._choices = choices
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._template = Template(id, "text_completion", created, model, with_usage=include_usage)
        self._offsets = [0] * choices
        self._n = n
        self._tokens = tokens or TokenDetails()
        self._usage = RunningUsage() if self._tokens.running_usage else None
        self._prompts: dict[int, PromptTokens] = {}  # by choice; gone once they were told

    def start(self) -> bytes:
        return b""

    def chunk(self, event: GenerationEvent) -> bytes:
        if self._usage is not None:
            self._usage.add(event)
        match event:
            case PromptTokens(prompt=prompt):
                self._prompts.update((prompt * self._n + place, event) for place in range(self._n))
                return b""
            case TextDelta(text="", token_ids=ids, logprobs=()) if not (ids and self._tokens.ids):
                return b""
            case TextDelta(index=index, text=text, token_ids=ids, logprobs=tokens):
                return self._choice(index, text, tokens, ids=ids)
            case ChoiceFinished(index=index):
                return self._choice(index, "", (), event)
            case ChoiceFields() | ReplyFields():
                self._template.keep(event)
                return b""
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
                completion_logprobs(folded.logprobs[index], offset=0) if self._logprobs is not None else None,
                folded.stop_reasons[index],
                folded.token_ids[index] if self._tokens.ids else msgspec.UNSET,
            )
            for index in range(self._choices)
        ]
        for choice in choices:
            if (prompt := folded.prompts.get(choice.index // self._n)) is not None:
                choice.prompt_token_ids = prompt.token_ids if self._tokens.ids else msgspec.UNSET
                choice.prompt_logprobs = prompt_logprobs(prompt) if self._tokens.prompt_logprobs else msgspec.UNSET
        fingerprint, further = folded.reply_fields(FINGERPRINT)
        told = [with_fields(choice, folded.choice_fields(choice.index)) for choice in choices]
        return _encode(with_fields(Completion(self._id, self._created, self._model, told, folded.usage, fingerprint), further))

    def _rest(self) -> bytes:
        return self._template.rest(b'"text":"","logprobs":null,"finish_reason":null')

    def _choice(
        self, index: int, text: str, tokens: tuple[TokenLogprob, ...], end: ChoiceFinished | None = None, *, ids: tuple[int, ...] = ()
    ) -> bytes:
        logprobs = b"null"
        if self._logprobs is not None and tokens:
            logprobs = _encode(completion_logprobs(tokens, offset=self._offsets[index]))
            self._offsets[index] += sum(token.characters for token in tokens)
        more = b""
        if self._tokens.ids:
            more = b',"token_ids":' + _encode(ids) if ids else b""
            if (prompt := self._prompts.pop(index, None)) is not None:  # with the choice's first chunk
                more += b',"prompt_token_ids":' + _encode(prompt.token_ids)
        body = b'"text":%b,"logprobs":%b,%b%b' % (_encode(text), logprobs, finish(end), more)
        return self._template.choice(index, body, usage=self._usage)
