"""What a backend yields: progress, text, calls, citations, embeddings, steps of workflows, usage."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.core.generation import FinishReason
from mm_gateway.core.search_events import FileCitation, SearchCall, UrlCitation
from mm_gateway.core.workflow_events import WorkflowOutcome, WorkflowStep

# A reply may have a million tokens. Without `gc=False` each of them would be a stop of Python's collector, which holds up everything
# for as long as it looks at them; the types below hold no cycles, so that it has nothing to find.


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A token with its natural-log probability in the model's own distribution (before temperature and truncation)."""

    token: str
    bytes: tuple[int, ...]
    logprob: float | None
    """None only for the first token of an echoed prompt."""
    top: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    """(token, bytes, logprob) of the most probable tokens, best first."""
    in_text: bool = True
    """False: a special token, which the text leaves out."""
    rank: int | None = None
    """Of a prompt's token: 1 for the most probable one. None: not looked for."""
    top_ids: tuple[int, ...] = ()
    """Of a prompt's token: the ids of `top`."""

    @property
    def characters(self) -> int:
        """Of the text; a character in several tokens counts with the first."""
        if not self.in_text:
            return 0
        return sum(byte & 0xC0 != 0x80 for byte in self.bytes) if self.bytes else len(self.token)


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What happens before (or, in a workflow, between) the text: `queued`, `loading`, `prefill`, or a workflow's stage."""

    stage: str
    detail: str = ""
    fraction: float | None = None
    """[0, 1], or None where unknown."""


ProgressCallback = Callable[[Progress], object]
"""Told how something goes on, perhaps from another thread; what it returns is ignored."""


class Ignored(msgspec.Struct, frozen=True, tag="ignored"):
    """Parts of the request that a backend leaves out, as paths in the body; before anything else of the reply."""

    fields: tuple[str, ...]


class TextDelta(msgspec.Struct, frozen=True, tag="text", gc=False):
    """Text appended to one choice; never splits a character, never holds part of a stop string. May be empty with logprobs."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning", gc=False):
    """A piece of what the model thinks before the answer of one choice, without what opens and closes a thought.

    Never splits a character. Comes before the choice's text and calls; only a model that thinks again between two texts sends it later.
    With an empty text it tells of tokens that open or close the thought. Stop strings, grammars and `min_tokens` do not apply to it, the
    limit of tokens does.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class PromptTokens(msgspec.Struct, frozen=True, tag="prompt"):
    """A prompt as the model reads it, where that was asked for; before the text of its choices.

    Attributes:
        prompt: counts the prompts of the request. logprobs: one a token, where they were asked for.
    """

    prompt: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call"):
    """A piece of one call of one choice; `id` and `name` come with the first, `arguments` are to be joined."""

    index: int
    call: int
    """Counts the calls of the choice."""
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class MessageFields(msgspec.Struct, frozen=True, tag="fields"):
    """Further fields of one choice's message, as a remote server sent them: `refusal`, `reasoning`, `audio`…

    Attributes:
        fields: JSON values. Those of one choice are pieces of one object.
    """

    index: int
    fields: Mapping[str, Any]


class ChoiceFields(msgspec.Struct, frozen=True, tag="choice_fields"):
    """Further fields of one choice, beside its message, as a remote server sent them: `stop_reason`, `token_ids`…

    Attributes:
        fields: JSON values. Lists of one choice are pieces of one list; of anything else the last counts.
    """

    index: int
    fields: Mapping[str, Any]


class ReplyFields(msgspec.Struct, frozen=True, tag="reply_fields"):
    """Further fields of the whole reply, as a remote server sent them: `system_fingerprint`, `citations`, `provider`…

    Attributes:
        fields: JSON values; of each the last counts.
    """

    fields: Mapping[str, Any]


class Embedding(msgspec.Struct, frozen=True, tag="embedding"):
    """The vector of one input, of length 1; `vector`: its numbers as little-endian float32."""

    index: int
    vector: bytes

    @classmethod
    def of(cls, index: int, numbers: Sequence[float]) -> Embedding:
        return cls(index, struct.pack(f"<{len(numbers)}f", *numbers))

    def numbers(self) -> tuple[float, ...]:
        return struct.unpack(f"<{len(self.vector) // 4}f", self.vector)


class ChoiceFinished(msgspec.Struct, frozen=True, tag="finished"):
    """The last event of one choice.

    Attributes:
        stop, stop_token: the request's stop string or stop token that ended it, where one did and that is known.
    """

    index: int
    finish_reason: FinishReason
    stop: str | None = None
    stop_token: int | None = None

    @property
    def stop_reason(self) -> str | int | None:
        """As vLLM tells it."""
        return self.stop if self.stop is not None else self.stop_token


MAX_COUNT = 2**53
"""Of tokens, which no request reaches; numbers beyond it are not exact in every client."""


class UsageSoFar(msgspec.Struct, frozen=True, tag="usage_so_far"):
    """Tokens of the request until now, where they are known: before the text that it counts; of a conversation here once tokenized."""

    prompt_tokens: int
    completion_tokens: int


class StageUsage(msgspec.Struct, frozen=True):
    """Tokens of one stage of a workflow."""

    stage: str
    prompt_tokens: int
    completion_tokens: int


class Usage(msgspec.Struct, frozen=True, tag="usage"):
    """Tokens of the whole request; the last event of every stream.

    Raises:
        ValueError: a count is no whole number from 0 to MAX_COUNT, as another server may say; whoever has a budget would be given money.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose KV entries were reused instead of computed."""
    reasoning_tokens: int = 0
    """Of the completion's tokens, those of thoughts, with what opens and closes them."""
    accepted_tokens: int = 0
    """Of the completion's tokens, those that were guessed and checked several at once."""
    rejected_tokens: int = 0
    """Tokens that were guessed, and are none of the completion's."""
    stages: tuple[StageUsage, ...] = ()
    """Of a workflow: what each stage took of it."""
    further: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """What else a remote server says of it, as JSON values, in the shape of chat's `usage`: `cost`, `completion_tokens_details`…"""

    def __post_init__(self) -> None:
        for count in (self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens):
            if not isinstance(count, int) or not 0 <= count <= MAX_COUNT:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"usage: {str(count)[:40]} is no number of tokens")


GenerationEvent = (
    Progress
    | Ignored
    | PromptTokens
    | ReasoningDelta
    | TextDelta
    | ToolCallDelta
    | UrlCitation
    | FileCitation
    | SearchCall
    | MessageFields
    | ChoiceFields
    | ReplyFields
    | Embedding
    | WorkflowStep
    | WorkflowOutcome
    | ChoiceFinished
    | UsageSoFar
    | Usage
)
