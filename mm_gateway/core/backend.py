"""What answers to a model name, and what it tells of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from mm_gateway.core.events import GenerationEvent
from mm_gateway.core.generation import ChatInput, GenerationRequest


class Tokenized(msgspec.Struct, frozen=True):
    """Token ids of a prompt; `strings`: each as the vocabulary spells it. `context_length`: tokens that the model can hold."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    context_length: int | None = None


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
    """Tokens that prompt and output may take together: what the memory allows, once the model was loaded; before, what its files say.
    None: unknown."""
    aliases: tuple[str, ...] = ()
    elsewhere: bool = False
    """Another server answers, or may, which need not understand all that is understood here."""
    details: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    media: bool = False
    """Messages may have parts that are no text: images, files, audio, as far as whoever answers takes them."""


class ForwardedBody(msgspec.Struct, frozen=True, kw_only=True):
    """A client's body for another OpenAI-compatible server, which decides itself what it serves."""

    model: str
    """The name the client asked for."""
    endpoint: Literal["chat/completions", "completions", "embeddings"]
    fields: Mapping[str, Any]
    """Name -> JSON value, or its bytes as `msgspec.Raw`."""
    choices: int = 1
    """That the reply has; of embeddings: vectors."""
    output_tokens: int = 0
    """At most so many are generated, as far as the body says; 0: it does not."""


class Allowance(msgspec.Struct, frozen=True):
    """What a server said of its limit of requests: how many it takes at once, and how many more with each second."""

    requests: int
    per_second: float
    at: float
    """When it said so, by the event loop's clock."""


class Backend(Protocol):
    """Whatever answers to a model name: a local model, a remote server, the mock, a workflow."""

    def info(self) -> ModelInfo:
        """The model as it is now; cheap, called for every listing."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Progress*, then the events of all choices interleaved (text, calls, fields, ends), then one Usage.

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
class ForwardingBackend(Backend, Protocol):
    """A Backend before another server: what clients send goes there as it came."""

    def forward(self, body: ForwardedBody) -> AsyncIterator[GenerationEvent]:
        """As `generate`. The model's name, and what decides how the server streams, are replaced."""
        ...


@runtime_checkable
class ProbedBackend(Protocol):
    """A Backend that tells whether it serves without being asked for a reply."""

    async def probe(self, timeout_s: float) -> bool:
        """Whether it is known to serve; False: a request alone will tell.

        Raises:
            GatewayError: it does not serve, or says nothing of it in time.
        """
        ...


@runtime_checkable
class LimitedBackend(Protocol):
    """A Backend before a server that has rate limits."""

    @property
    def allowance(self) -> Allowance | None:
        """As it said last; None: it said nothing of them."""
        ...


@runtime_checkable
class TokenizingBackend(Protocol):
    """A Backend that can say how it reads text as tokens."""

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        """A text's tokens, or a conversation's, as `generate` would read them (the whole of it, whether it fits or not).

        Args:
            add_special_tokens: of a text: with what the tokenizer puts in front (BOS).

        Raises:
            GatewayError: the tokenizer cannot be loaded, the template refuses the messages, a remote server has no such thing.
        """
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included; errors as for `tokenize`, and where an id is outside the vocabulary."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Tokens of each text, without control tokens; estimated where only a server elsewhere knows. May wait for the model to load,
        after which `info` says how many it can hold.

        Raises:
            GatewayError: as `generate` does.
        """
        ...
