"""What is asked: messages, tools, grammars, and how to generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import (
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    BadWord,
    Bias,
    Choices,
    MinP,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopString,
    Temperature,
    TokenId,
    TopK,
    TopLogprobs,
    TopP,
)
from mm_gateway.core.ranges import check_ranges
from mm_gateway.core.reasoning import Reasoning
from mm_gateway.errors import InvalidRequestError

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
TruncationSide = Literal["left", "right"]


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
    reasoning: str | None = None
    """assistant: what it thought before the content and the calls. The chat template decides which thoughts the model reads again."""
    parts: tuple[Mapping[str, Any], ...] = ()
    """The content as chat's parts, where it is not text alone; only what another server gets has them."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call. parameters: JSON schema of an object; None: no arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    """Refuse a schema that calls cannot be held to in all of it, in place of leaving parts of it out."""
    input_grammar: Grammar | None = None
    """Of a tool whose one argument is a text, `input`: what that has to be, `lark` or `regex`. None: any text, or another kind of tool."""


class ToolUse(msgspec.Struct, frozen=True):
    """What may and what must be called.

    Attributes:
        tools: at least one. required: the reply has to be a call.
        only: the one that has to be called, with `required`.
        parallel: several calls in one reply are allowed.
        places: of each tool in the request's own list, for errors; empty: as they stand here.
        shown_only: none is called; the model is told of them so that the prompt begins as those of other turns do.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    only: str | None = None
    parallel: bool = True
    places: tuple[int, ...] = ()
    shown_only: bool = False

    @property
    def several(self) -> bool:
        """Whether a reply may hold more than one call."""
        return self.parallel and self.only is None


class Grammar(msgspec.Struct, frozen=True):
    """What the output has to be, token by token.

    Attributes:
        kind: `json_schema` (text: the schema as JSON), `json_object` (any JSON object), `regex`, `choice` (text: a JSON list of the
            texts), `lark` (text: a grammar in llguidance's dialect of Lark), `gbnf` (text: one as llama.cpp and xgrammar write it),
            `structural_tag` (text: vLLM's and xgrammar's, as JSON).
        param: the field of the request that asked for it, to be named in errors.
    """

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark", "gbnf", "structural_tag"]
    text: str = ""
    param: str = "response_format"


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to continue a prompt. Every field is compared with its range when the object is made.

    Raises:
        InvalidRequestError: a value is out of range; `param` names the field.
    """

    max_new_tokens: Annotated[int, Meta(ge=0)] | None = None
    """Upper bound of generated tokens, >= 1 (0 only scores the prompt, with `prompt_logprobs`); None: what is left of the context."""
    clamp_to_context: bool = False
    """Where the context leaves less than `max_new_tokens`, that much is the limit; otherwise such a request is refused."""
    temperature: Temperature | None = None
    """[0, 2]; 0 is greedy. None: the model's own default, else 1."""
    top_p: TopP | None = None
    """(0, 1]: sample among the fewest tokens whose probabilities reach it. None: the model's own default, else 1."""
    top_k: TopK | None = None
    """>= 0: sample among the k most probable tokens; 0 or -1: all. None: the model's own default, else all."""
    min_p: MinP | None = None
    """[0, 1]: drop tokens less probable than min_p times the most probable one; 0: none. None: the model's own default, else 0."""
    presence_penalty: Penalty = 0.0
    """[-2, 2], OpenAI's formula: subtracted once from the logit of each token generated so far."""
    frequency_penalty: Penalty = 0.0
    """[-2, 2], OpenAI's formula: subtracted from a token's logit once per time it was generated."""
    repetition_penalty: RepetitionPenalty | None = None
    """(0, 10], CTRL's formula over prompt and output: logits > 0 divided, < 0 multiplied. None: the model's default, else 1."""
    logit_bias: Annotated[Mapping[int, Bias], Meta(max_length=MAX_LOGIT_BIAS)] = msgspec.field(default_factory=dict[int, float])
    """Token id -> [-100, 100], added to the logit; up to 8192 of them."""
    seed: Seed | None = None
    """Same seed, prompt and parameters give the same text. None: a fresh random seed."""
    stop: Annotated[tuple[StopString, ...], Meta(max_length=MAX_STOP_STRINGS)] = ()
    """Up to 64 strings of 1 to 1024 characters that end the text; they are not part of it."""
    stop_token_ids: Annotated[tuple[TokenId, ...], Meta(max_length=MAX_STOP_TOKEN_IDS)] = ()
    """Up to 1024 tokens that end the text, whatever `ignore_eos` says; they are not part of it."""
    include_stop_str_in_output: bool = False
    """The stop string or token of the request that ends the text is part of it; a special token only as `skip_special_tokens` says."""
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    """So many tokens come before anything ends the text: until then no token that does is sampled, and stop strings are not looked for."""
    ignore_eos: bool = False
    """Go on past end-of-sequence tokens until max_new_tokens."""
    bad_words: Annotated[tuple[BadWord, ...], Meta(max_length=MAX_BAD_WORDS)] = ()
    """Up to 256 texts of 1 to 128 characters that are not written as the tokens that they are encoded to, by themselves and after a blank.

    The same text in other tokens can be written.
    """
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    n: Choices = 1
    """Choices per prompt, [1, 128]."""
    logprobs: TopLogprobs | None = None
    """None: no log-probabilities. k in [0, 20]: the sampled token's and the k most probable ones'."""
    grammar: Grammar | None = None
    """Only tokens that keep the output within it can be sampled; the text ends when it is complete, whatever `ignore_eos` says."""
    prompt_logprobs: TopLogprobs | None = None
    """As `logprobs`, of the prompt's tokens; None: none. They come with the prompt that is echoed, else as `PromptTokens`."""
    end_logprobs: bool = False
    """With `logprobs`: also of the tokens that end the text and are not part of it, so that there is one for each that was sampled."""
    return_token_ids: bool = False
    """Also report the prompt's tokens, and at the end those that end the text and are not part of it; `end_logprobs` is meant too."""
    return_tokens_as_token_ids: bool = False
    """Log-probabilities name tokens as `token_id:<id>`, so that those stay different that have the same text."""
    speculation: bool = True
    """Tokens may be guessed ahead and checked several at once, where the model does so; the text is the same in any case."""
    prediction: str = ""
    """What most of the text is likely to be: where it says so, what follows in it is guessed."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.max_new_tokens == 0 and self.prompt_logprobs is None:
            raise InvalidRequestError("max_new_tokens must be at least 1, got 0", param="max_new_tokens")
        if self.max_new_tokens is not None and self.min_tokens > self.max_new_tokens:
            text = f"min_tokens must be at most the limit of tokens, {self.max_new_tokens}, got {self.min_tokens}"
            raise InvalidRequestError(text, param="min_tokens")

    @property
    def required_room(self) -> int | None:
        """Tokens that the context must leave for the reply; None: whatever there is, at least one."""
        return None if self.clamp_to_context else self.max_new_tokens


class Rendering(msgspec.Struct, frozen=True):
    """How a chat template makes a prompt of a conversation.

    Attributes:
        add_generation_prompt: begin the assistant's turn.
        continue_final_message: leave the last message open, to be gone on with; no other turn begins then.
        add_special_tokens: put in front what the tokenizer does (BOS), unless the template has written it.
        documents: for templates that know them, each with `title` and `text` as a rule.
        variables: further variables of the template, JSON values by name.
    """

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    documents: tuple[Mapping[str, str], ...] = ()
    variables: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ChatInput(msgspec.Struct, frozen=True, tag="chat"):
    """A conversation to be rendered by the model's chat template; at least one message.

    Attributes:
        echo: an assistant's message at its end comes before the text.
        truncate_prompt_tokens: as of CompletionInput.
    """

    messages: tuple[Message, ...]
    tools: ToolUse | None = None
    rendering: Rendering = Rendering()
    echo: bool = False
    truncate_prompt_tokens: int | None = None
    truncate: bool | None = None
    """Whether to leave out the oldest turns of a conversation that does not fit the context; None: as the model is configured."""
    reasoning: Reasoning = Reasoning()
    """How much the model is to think before it answers."""

    @property
    def characters(self) -> int:
        """Of the texts that a template renders."""
        calls = sum(len(call.arguments) for message in self.messages for call in message.tool_calls)
        descriptions = sum(len(tool.description) for tool in self.tools.tools) if self.tools is not None else 0
        texts = sum(len(message.content) + len(message.reasoning or "") for message in self.messages)
        return texts + calls + descriptions


class CompletionInput(msgspec.Struct, frozen=True, tag="completion"):
    """Raw prompts, each a text or token ids; choice `index` counts prompts times `n`. `echo` puts the prompt before the text."""

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool = False
    add_special_tokens: bool = True
    """Put in front of texts what the tokenizer does (BOS), unless a text begins with it."""
    truncate_prompt_tokens: int | None = None
    """Read the last tokens of each prompt alone, so many of them; -1: as many as the context holds beside the reply. None: all."""

    @property
    def characters(self) -> int:
        """Of all prompts, or their tokens."""
        return sum(map(len, self.prompts))


class EmbeddingInput(msgspec.Struct, frozen=True, tag="embedding"):
    """Texts or token ids, each to become one vector. `dimensions`: numbers that a vector is to have, >= 1; None: the model's own."""

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    add_special_tokens: bool = True
    """Put around texts what the tokenizer does."""
    truncate_prompt_tokens: int | None = None
    """At most so many tokens of each input are read, >= 1, special tokens around a text included; -1: what the context holds. None: all."""
    truncation_side: TruncationSide | None = None
    """Which end of an input is cut off; None: as the tokenizer is configured, which nearly always is the right one."""

    @property
    def characters(self) -> int:
        """Of all inputs, or their tokens."""
        return sum(map(len, self.inputs))


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
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    """OpenAI's `metadata`, as given."""
    workflow: Mapping[str, Any] | None = None
    """The body's `workflow` object, as given, for backends that are workflows to check; None: there was none."""
    user: str | None = None
    principal: str = ""
    """Whose request it is, so that nobody reads what another one stored; empty where no keys are asked for."""
