"""Bodies of `/v1/chat/completions` and `/v1/completions`, and the fields that every endpoint shares that generates text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import (
    MAX_BAD_WORDS,
    MAX_GUIDED_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_PROMPTS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOKEN_IDS,
    BadWord,
    Bias,
    Choices,
    MaxTokens,
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
from mm_gateway.protocol.conversation import (
    AddGenerationPrompt,
    ChatTemplateField,
    ContinueFinalMessage,
    Documents,
    Messages,
    ParallelToolCalls,
    Prediction,
    TemplateVariables,
    ToolChoiceField,
    Tools,
)
from mm_gateway.protocol.fields import (
    AddressedBody,
    KeepAlive,
    Metadata,
    Speculation,
    User,
    Verbosity,
    about,
    extension,
    no_effect,
    refused,
)
from mm_gateway.protocol.reasoning import BudgetField, ChatReasoning, EffortField, TokenBudgetField

_GRAMMAR = "A grammar that the output follows: in llguidance's dialect of Lark, or as llama.cpp and xgrammar write it (`root ::= …`)."

TokenIds = Annotated[list[int], Meta(max_length=MAX_TOKEN_IDS)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: Annotated[bool | None, about("End with a chunk of usage and no choices.")] = None
    include_obfuscation: Annotated[bool | None, no_effect("Whether to pad chunks.")] = None
    continuous_usage_stats: Annotated[
        bool | None, extension("With `include_usage`: each chunk has the usage so far, where the model's tokens are known.")
    ] = None


_TAG = "free text with structured parts, as vLLM and xgrammar describe them."


class JsonSchemaFormat(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    schema: Annotated[dict[str, Any] | bool | None, about("JSON schema; null: any object.")] = None
    description: str | None = None
    strict: Annotated[bool | None, no_effect("Every schema is enforced.")] = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: Annotated[JsonSchemaFormat | None, about("With `type: json_schema`.")] = None
    format: Annotated[dict[str, Any] | None, extension(f"With `type: structural_tag`: {_TAG}")] = None
    structures: Annotated[
        list[Any] | None, extension("With `type: structural_tag`, in place of `format`: `begin`, `schema` and `end` of each.")
    ] = None
    triggers: Annotated[list[str] | None, extension("With `structures`: each text that begins some of them.")] = None


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's form of the `guided_…` fields: one of the first five."""

    json: Annotated[dict[str, Any] | bool | str | None, about("A JSON schema, as such or as text, that the output follows.")] = None
    regex: Annotated[str | None, about("A regular expression that the whole output matches.", examples=["[0-9]{3}"])] = None
    choice: Annotated[
        Annotated[list[str], Meta(min_length=1, max_length=MAX_GUIDED_CHOICES)] | None, about("The output is one of these texts.")
    ] = None
    grammar: Annotated[str | None, about(_GRAMMAR)] = None
    json_object: Annotated[bool | None, about("The output is any JSON object.")] = None
    disable_any_whitespace: Annotated[bool | None, no_effect("JSON is written without white space as it is.")] = None
    disable_additional_properties: Annotated[bool | None, refused("Use `additionalProperties: false`.", off=(False,))] = None
    whitespace_pattern: Annotated[str | None, refused()] = None
    structural_tag: Annotated[dict[str, Any] | str | None, about(f"As such or as JSON text: {_TAG}")] = None


class SamplingFields(AddressedBody, kw_only=True, forbid_unknown_fields=True):
    """How to continue, the same at every endpoint that generates text."""

    temperature: Annotated[Temperature | None, about("0 is greedy. Default: the model's own, else 1.", examples=[0.7])] = None
    top_p: Annotated[
        TopP | None, about("Sample among the fewest tokens whose probabilities reach it. Default: the model's own, else 1.")
    ] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)] | None,
        about(f"Up to {MAX_STOP_STRINGS} texts that end the reply and are not part of it, each of 1 to {MAX_STOP_CHARACTERS} characters."),
    ] = None
    presence_penalty: Annotated[Penalty | None, about("Subtracted once from the logit of each token generated so far.")] = None
    frequency_penalty: Annotated[Penalty | None, about("Subtracted from a token's logit once per time it was generated.")] = None
    logit_bias: Annotated[
        Annotated[dict[Annotated[int, Meta(ge=0)], Bias], Meta(max_length=MAX_LOGIT_BIAS)] | None,
        about("Token id -> -100 to 100, added to its logit.", examples=[{"50256": -100}]),
    ] = None
    seed: Annotated[Seed | None, about("The same seed, prompt and parameters give the same text.")] = None
    user: User = None

    # extensions that peers share
    top_k: Annotated[TopK | None, extension("Sample among the k most probable tokens; 0 or -1: all.")] = None
    min_p: Annotated[MinP | None, extension("Drop tokens less probable than this times the most probable one.")] = None
    repetition_penalty: Annotated[
        RepetitionPenalty | None, extension("Divides positive logits of tokens seen in prompt or output, multiplies negative ones.")
    ] = None
    ignore_eos: Annotated[bool | None, extension("Go on past the end-of-text token, to the limit.")] = None
    min_tokens: Annotated[
        Annotated[int, Meta(ge=0)] | None, extension("So many tokens come before anything ends the text, be it the end of text or a stop.")
    ] = None
    stop_token_ids: Annotated[
        Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)] | None,
        extension("Tokens that end the reply and are not part of it, whatever `ignore_eos` says."),
    ] = None
    include_stop_str_in_output: Annotated[
        bool | None,
        extension("The stop string, or the stop token where it has a text, that ends the reply is part of it. Default: false."),
    ] = None
    skip_special_tokens: Annotated[bool | None, extension("Leave special tokens out of the text. Default: true.")] = None
    bad_words: Annotated[
        Annotated[list[BadWord], Meta(max_length=MAX_BAD_WORDS)] | None,
        extension(
            "Texts that are not written as the tokens that they are encoded to, by themselves and after a blank. "
            "In other tokens they can still come."
        ),
    ] = None
    structured_outputs: Annotated[StructuredOutputs | None, extension("What the output has to look like, enforced token by token.")] = None
    spaces_between_special_tokens: Annotated[bool | None, no_effect("Fast tokenizers put none there.")] = None
    stream_interval: Annotated[int | None, no_effect("How many tokens a chunk of a stream is to have.")] = None
    request_id: Annotated[str | None, no_effect("Your name of the request.")] = None
    session_id: Annotated[str | None, no_effect("Your name of the session.")] = None
    allowed_token_ids: Annotated[Any, refused("Use `logit_bias` or a grammar.")] = None
    cache_salt: Annotated[Any, refused("Prompts that begin alike share work, whoever sends them.")] = None
    priority: Annotated[int | None, refused(off=(0,))] = None
    repetition_detection: Annotated[Any, refused()] = None
    thinking_token_budget: Annotated[int | None, refused(off=(-1,))] = None
    use_beam_search: Annotated[bool | None, refused(off=(False,))] = None
    length_penalty: Annotated[float | None, refused("It is of beam search.", off=(1.0,))] = None
    keep_alive: KeepAlive = None
    speculation: Speculation = None


class GenerationFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """What chat and completions have in common."""

    n: Annotated[Choices | None, about("Choices per prompt. Default: 1.")] = None
    stream: Annotated[bool | None, about("Send the reply as server-sent events while it is generated.")] = None
    stream_options: Annotated[StreamOptions | None, about("Only with `stream`.")] = None

    # extensions that peers share
    guided_json: Annotated[dict[str, Any] | bool | str | None, extension("A JSON schema, as such or as text, that the output follows.")] = (
        None
    )
    guided_regex: Annotated[str | None, extension("A regular expression that the whole output matches.", examples=["[0-9]{3}"])] = None
    guided_choice: Annotated[
        Annotated[list[str], Meta(min_length=1, max_length=MAX_GUIDED_CHOICES)] | None, extension("The output is one of these texts.")
    ] = None
    guided_grammar: Annotated[str | None, extension(_GRAMMAR)] = None
    truncate_prompt_tokens: Annotated[
        Annotated[int, Meta(ge=-1)] | None,
        extension("Read the last tokens of the prompt alone, so many of them; -1: as many as the context holds beside the reply."),
    ] = None
    prompt_logprobs: Annotated[
        TopLogprobs | None,
        extension("Log-probabilities of the prompt's tokens, and of this many of the most probable ones; not with `stream`."),
    ] = None
    return_token_ids: Annotated[bool | None, extension("Also `prompt_token_ids`, and `token_ids` of each choice.")] = None
    return_tokens_as_token_ids: Annotated[
        bool | None, extension("Log-probabilities name tokens as `token_id:<id>`, so that different ones stay different.")
    ] = None
    truncation_side: Annotated[str | None, refused("The last tokens are kept.", off=("left",))] = None


class ChatCompletionRequest(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[Messages, about("The conversation so far.", minItems=1)]
    max_completion_tokens: Annotated[MaxTokens | None, about("Most tokens to generate. Default: what is left of the context.")] = None
    max_tokens: Annotated[MaxTokens | None, about("The older name of `max_completion_tokens`.")] = None
    logprobs: Annotated[bool | None, about("Log-probabilities of the tokens.")] = None
    top_logprobs: Annotated[TopLogprobs | None, about("With `logprobs`: of this many of the most probable tokens too.")] = None
    response_format: Annotated[ResponseFormat | None, about("Enforced token by token.")] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        extension("`auto` leaves out the oldest turns of what does not fit the context; `disabled` refuses it. Default: the model's."),
    ] = None
    workflow: Annotated[dict[str, Any] | None, extension("Parameters of a workflow; only for models that are workflows.")] = None
    web_search_options: Annotated[
        dict[str, Any] | None,
        about(
            "The model may search the web: `search_context_size` says how much it reads. Where no provider of the web is configured "
            "(`search.provider`), it is left out and named in `x-mm-gateway-ignored`."
        ),
    ] = None

    reasoning_effort: EffortField = None
    reasoning: Annotated[ChatReasoning | None, extension("The same as an object.")] = None
    thinking_budget: BudgetField = None
    thinking_token_budget: TokenBudgetField = None
    include_reasoning: Annotated[bool | None, extension("False: leave thoughts out of the reply, though the model thinks.")] = None

    chat_template_kwargs: TemplateVariables = None
    add_generation_prompt: AddGenerationPrompt = None
    continue_final_message: ContinueFinalMessage = None
    add_special_tokens: Annotated[
        bool | None, extension("Put the beginning-of-text token in front, unless the chat template has written it. Default: false.")
    ] = None
    prediction: Annotated[
        Prediction | None,
        about(
            "A text that most of the reply repeats, such as a file that is edited. What follows in it is guessed, and checked several "
            "tokens at a time where the model looks guesses up (`engine.prompt_lookup`); the reply and its price are the same in any case."
        ),
    ] = None
    documents: Documents = None
    echo: Annotated[bool | None, extension("Put the text of the last message, where it is the assistant's, before the reply.")] = None
    chat_template: ChatTemplateField = None
    mm_processor_kwargs: Annotated[Any, refused()] = None
    media_io_kwargs: Annotated[Any, refused()] = None

    tools: Tools = None
    tool_choice: ToolChoiceField = None
    parallel_tool_calls: ParallelToolCalls = None

    # without effect on the reply, as OpenAI documents them
    metadata: Annotated[Metadata | None, no_effect("Your own keys and values.")] = None
    store: Annotated[bool | None, no_effect("Whether to keep the reply.")] = None
    service_tier: Annotated[str | None, no_effect("Priority.")] = None
    safety_identifier: Annotated[str | None, no_effect("Your name of the end user.")] = None
    prompt_cache_key: Annotated[str | None, no_effect("Prompts that begin alike share work anyway.")] = None
    prompt_cache_retention: Annotated[str | None, no_effect("Prompts that begin alike share work anyway.")] = None

    prompt_cache_options: Annotated[dict[str, Any] | None, no_effect("Prompts that begin alike share work anyway.")] = None

    verbosity: Verbosity = None

    # decoded so that they can be refused by name
    functions: Annotated[list[Any] | None, refused("Use `tools`.")] = None
    function_call: Annotated[Any, refused("Use `tool_choice`.", off=("none", "auto"))] = None
    modalities: Annotated[list[str] | None, refused(off=(["text"],))] = None
    audio: Annotated[Any, refused()] = None
    moderation: Annotated[Any, refused()] = None


class CompletionRequest(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/completions`."""

    prompt: Annotated[
        str | Annotated[list[str | int | TokenIds], Meta(max_length=MAX_TOKEN_IDS)] | None,
        about(f"A text, up to {MAX_PROMPTS} texts, token ids, or lists of token ids; not mixed.", examples=["Once upon a time"]),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        about("Most tokens to generate; 0 only with `echo` and `logprobs`. Default: 16."),
    ] = None
    best_of: Annotated[Choices | None, about("Sample this many per prompt, return the `n` of highest mean log-probability.")] = None
    echo: Annotated[bool | None, about("Put the prompt before the text; with `logprobs` it is scored too.")] = None
    logprobs: Annotated[TopLogprobs | None, about("Log-probabilities of the tokens, and of this many of the most probable ones.")] = None
    add_special_tokens: Annotated[
        bool | None,
        extension("Put the beginning-of-text token, where the model has one, before a prompt without it. Default: true."),
    ] = None
    response_format: Annotated[ResponseFormat | None, extension("Enforced token by token.")] = None
    suffix: Annotated[str | None, refused(off=("",))] = None
    prompt_embeds: Annotated[Any, refused()] = None
