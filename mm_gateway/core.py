"""The vocabulary shared by all rooms: messages, generation requests, events, and the Backend that turns one into the other.

Knows nothing of HTTP, YAML, torch or any model. Everything here is immutable.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from mm_gateway.errors import InvalidRequestError

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

MAX_STOP_STRINGS = 4
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128


class ToolCall(msgspec.Struct, frozen=True):
    """A function that the assistant called; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation; `content` is plain text and is never interpreted as control tokens."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """assistant: the functions it called."""
    tool_call_id: str | None = None
    """tool: the call that this is the result of."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call. parameters: JSON schema of an object; None: no arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    """Without effect: arguments always follow the schema."""


class ToolUse(msgspec.Struct, frozen=True):
    """What may and what must be called.

    Attributes:
        tools: at least one. required: the reply has to be a call.
        only: the one that has to be called, with `required`.
        parallel: several calls in one reply are allowed.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    only: str | None = None
    parallel: bool = True

    @property
    def several(self) -> bool:
        """Whether a reply may hold more than one call."""
        return self.parallel and self.only is None


class Grammar(msgspec.Struct, frozen=True):
    """What the output has to be, token by token.

    Attributes:
        kind: `json_schema` (text: the schema as JSON), `json_object` (any JSON object), `regex`, `choice` (text: a JSON list of the
            texts), `lark` (text: a grammar in llguidance's dialect of Lark).
        param: the field of the request that asked for it, to be named in errors.
    """

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    text: str = ""
    param: str = "response_format"


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to continue a prompt. Every field is validated when the object is made.

    Raises:
        InvalidRequestError: a value is out of range; `param` names the field.
    """

    max_new_tokens: int | None = None
    """Upper bound of generated tokens, >= 1 (0 only scores the prompt, with `prompt_logprobs`); None: what is left of the context."""
    temperature: float | None = None
    """[0, 2]; 0 is greedy. None: the model's own default, else 1."""
    top_p: float | None = None
    """(0, 1]: sample among the fewest tokens whose probabilities reach it. None: the model's own default, else 1."""
    top_k: int | None = None
    """>= 0: sample among the k most probable tokens; 0 or -1: all. None: the model's own default, else all."""
    min_p: float = 0.0
    """[0, 1]: drop tokens less probable than min_p times the most probable one."""
    presence_penalty: float = 0.0
    """[-2, 2], OpenAI's formula: subtracted once from the logit of each token generated so far."""
    frequency_penalty: float = 0.0
    """[-2, 2], OpenAI's formula: subtracted from a token's logit once per time it was generated."""
    repetition_penalty: float | None = None
    """(0, 10], CTRL's formula over prompt and output: logits > 0 divided, < 0 multiplied. None: the model's default, else 1."""
    logit_bias: Mapping[int, float] = msgspec.field(default_factory=dict)
    """Token id -> [-100, 100], added to the logit."""
    seed: int | None = None
    """Same seed, prompt and parameters give the same text. None: a fresh random seed."""
    stop: tuple[str, ...] = ()
    """Up to four strings that end the text; they are not part of it."""
    ignore_eos: bool = False
    """Go on past end-of-sequence tokens until max_new_tokens."""
    n: int = 1
    """Choices per prompt, [1, 128]."""
    logprobs: int | None = None
    """None: no log-probabilities. k in [0, 20]: the sampled token's and the k most probable ones'."""
    grammar: Grammar | None = None
    """Only tokens that keep the output within it can be sampled; the text ends when it is complete, whatever `ignore_eos` says."""
    prompt_logprobs: bool = False
    """Also report log-probabilities of the prompt's tokens (`echo` with `logprobs`)."""

    def __post_init__(self) -> None:
        _check_range("max_new_tokens", self.max_new_tokens, 0 if self.prompt_logprobs else 1, math.inf)
        _check_range("temperature", self.temperature, 0, 2)
        _check_range("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise InvalidRequestError("top_p must be greater than 0 and at most 1, got 0", param="top_p")
        _check_range("top_k", self.top_k, -1, math.inf)
        _check_range("min_p", self.min_p, 0, 1)
        _check_range("presence_penalty", self.presence_penalty, -2, 2)
        _check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_range("repetition_penalty", self.repetition_penalty, 0, 10)
        if self.repetition_penalty == 0:
            raise InvalidRequestError("repetition_penalty must be greater than 0, got 0", param="repetition_penalty")
        for token_id, bias in self.logit_bias.items():
            _check_range(f"logit_bias[{token_id}]", bias, -100, 100)
        _check_range("seed", self.seed, -(2**63), 2**64 - 1)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError(f"stop takes up to {MAX_STOP_STRINGS} strings, got {len(self.stop)}", param="stop")
        if "" in self.stop:
            raise InvalidRequestError("stop strings must not be empty", param="stop")
        _check_range("n", self.n, 1, MAX_CHOICES)
        _check_range("logprobs", self.logprobs, 0, MAX_TOP_LOGPROBS)


def _check_range(param: str, value: float | None, low: float, high: float) -> None:
    # `not (low <= value <= high)` also refuses NaN, which compares false with everything.
    if value is not None and not (low <= value <= high):
        allowed = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise InvalidRequestError(f"{param} must be {allowed}, got {value}", param=param)


class ChatInput(msgspec.Struct, frozen=True, tag="chat"):
    """A conversation to be rendered by the model's chat template; at least one message."""

    messages: tuple[Message, ...]
    tools: ToolUse | None = None
    truncate: bool | None = None
    """Whether to leave out the oldest turns of a conversation that does not fit the context; None: as the model is configured."""


class CompletionInput(msgspec.Struct, frozen=True, tag="completion"):
    """Raw prompts, each a text or token ids; choice `index` counts prompts times `n`. `echo` puts the prompt before the text."""

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool = False


class EmbeddingInput(msgspec.Struct, frozen=True, tag="embedding"):
    """Texts or token ids, each to become one vector. `dimensions`: numbers that a vector is to have, >= 1; None: the model's own."""

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one Backend."""

    request_id: str
    model: str
    """The name the client asked for."""
    input: ChatInput | CompletionInput | EmbeddingInput
    config: GenerationConfig = GenerationConfig()
    best_of: int | None = None
    """Sample this many per prompt, return the `n` of highest mean log-probability; None: `n`."""
    keep_alive: float | None = None
    """Seconds to keep the model after this request; 0 unloads after it; None: the configured ttl_s."""
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    """OpenAI's `metadata`, as given."""
    workflow: Mapping[str, Any] | None = None
    """The body's `workflow` object, as given, for backends that are workflows to check; None: there was none."""
    user: str | None = None
    principal: str = ""
    """Whose request it is, so that nobody reads what another one stored; empty where no keys are asked for."""


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token with its natural-log probability in the model's own distribution (before temperature and truncation)."""

    token: str
    bytes: tuple[int, ...]
    logprob: float | None
    """None only for the first token of an echoed prompt."""
    top: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    """(token, bytes, logprob) of the most probable tokens, best first."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What happens before (or, in a workflow, between) the text: `queued`, `loading`, `prefill`, or a workflow's stage."""

    stage: str
    detail: str = ""
    fraction: float | None = None
    """[0, 1], or None where unknown."""


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """Text appended to one choice; never splits a character, never holds part of a stop string. May be empty with logprobs."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call"):
    """A piece of one call of one choice; `id` and `name` come with the first, `arguments` are to be joined."""

    index: int
    call: int
    """Counts the calls of the choice."""
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class UrlCitation(msgspec.Struct, frozen=True, tag="citation"):
    """A part of one choice's text that comes from a source; follows the text that it is about.

    Attributes:
        start_index, end_index: characters of the choice's whole text, end exclusive.
    """

    index: int
    start_index: int
    end_index: int
    title: str
    url: str


class Embedding(msgspec.Struct, frozen=True, tag="embedding"):
    """The vector of one input, of length 1; `vector`: its numbers as little-endian float32."""

    index: int
    vector: bytes

    @classmethod
    def of(cls, index: int, numbers: Sequence[float]) -> Embedding:
        return cls(index, struct.pack(f"<{len(numbers)}f", *numbers))

    def numbers(self) -> tuple[float, ...]:
        return struct.unpack(f"<{len(self.vector) // 4}f", self.vector)


class WorkflowStep(msgspec.Struct, frozen=True, tag="step"):
    """A stage of a workflow that has ended.

    Attributes:
        success: it did what it is for; False with `error`. degraded: it did less than it is for; `error` says why.
        input_count, output_count: how many things it was given and gave: sources, pages, sections…
    """

    name: str
    success: bool
    duration_s: float
    input_count: int = 1
    output_count: int = 1
    degraded: bool = False
    error: str | None = None

    def told(self) -> dict[str, Any]:
        """As replies and results show it."""
        return msgspec.structs.asdict(self)


class WorkflowOutcome(msgspec.Struct, frozen=True, tag="outcome"):
    """What a workflow did; follows the text, before the choices finish.

    Attributes:
        model: that answered. metadata: what the workflow tells of its work, as JSON values: `query`, `sources`…
        result: for callers in Python, where it is not the text alone.
    """

    model: str
    steps: tuple[WorkflowStep, ...]
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    result: Any = None

    @property
    def degraded(self) -> bool:
        """A step did less than it is for."""
        return any(step.degraded or not step.success for step in self.steps)


class ChoiceFinished(msgspec.Struct, frozen=True, tag="finished"):
    """The last event of one choice."""

    index: int
    finish_reason: FinishReason


class StageUsage(msgspec.Struct, frozen=True):
    """Tokens of one stage of a workflow."""

    stage: str
    prompt_tokens: int
    completion_tokens: int


class Usage(msgspec.Struct, frozen=True, tag="usage"):
    """Tokens of the whole request; the last event of every stream."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose KV entries were reused instead of computed."""
    reasoning_tokens: int = 0
    stages: tuple[StageUsage, ...] = ()
    """Of a workflow: what each stage took of it."""


GenerationEvent = Progress | TextDelta | ToolCallDelta | UrlCitation | Embedding | WorkflowStep | WorkflowOutcome | ChoiceFinished | Usage


class Tokenized(msgspec.Struct, frozen=True):
    """Token ids of a prompt; `strings`: each as the vocabulary spells it. `context_length`: tokens that the model can hold."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    context_length: int | None = None


class Measure(msgspec.Struct, frozen=True):
    """Texts in the tokens of a model.

    Attributes:
        tokens: of each text. context_length: tokens that prompt and output may take together; None: unknown.
        exact: by the model's own tokenizer, not estimated.
    """

    tokens: tuple[int, ...]
    context_length: int | None
    exact: bool = True


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/models` and the command line show of a model."""

    id: str
    created: int
    """Unix seconds at which the gateway started to serve it."""
    owned_by: str = "mm-gateway"
    backend: str = "local"
    state: str = "ready"
    """cold, loading, ready, busy, evicting or failed."""
    context_length: int | None = None
    aliases: tuple[str, ...] = ()
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Backend(Protocol):
    """Whatever answers to a model name: a local model, a remote server, the mock, a workflow."""

    def info(self) -> ModelInfo:
        """The model as it is now; cheap, called for every listing."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Progress*, then TextDelta, ToolCallDelta, UrlCitation and ChoiceFinished of all choices interleaved, then one Usage.

        For an EmbeddingInput: Progress*, one Embedding an input, in any order, then one Usage.
        Workflows yield Progress and WorkflowStep between them too, and one WorkflowOutcome before the choices finish.

        An async generator: closing it (`aclose`, or cancelling the task that awaits it) cancels the work within one
        step and frees all that it held.

        Raises:
            GatewayError: anywhere in the stream, typed as in `errors.py`.
        """
        ...

    async def close(self) -> None:
        """Release what the backend holds (connections, threads); idempotent."""
        ...


@runtime_checkable
class TokenizingBackend(Protocol):
    """A Backend that can say how it reads text as tokens."""

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True, add_generation_prompt: bool = True) -> Tokenized:
        """A text's tokens, or a conversation's, as `generate` would read them (the whole of it, whether it fits or not).

        Args:
            add_special_tokens: of a text: with what the tokenizer puts in front (BOS).
            add_generation_prompt: of a conversation: with the beginning of the assistant's turn.

        Raises:
            GatewayError: the tokenizer cannot be loaded, the template refuses the messages, a remote server has no such thing.
        """
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included; errors as for `tokenize`, and where an id is outside the vocabulary."""
        ...


@runtime_checkable
class MeasuringBackend(Protocol):
    """A Backend that knows its model's tokenizer."""

    async def measure(self, texts: Sequence[str]) -> Measure:
        """The texts in tokens, without control tokens. May wait for the model to load.

        Raises:
            GatewayError: as `generate` does.
        """
        ...
