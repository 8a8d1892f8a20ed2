"""Bodies of `/v1/embeddings`, `/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mm_gateway.core.limits import MAX_PROMPTS, MAX_TOKEN_IDS
from mm_gateway.protocol.conversation import (
    AddGenerationPrompt,
    ChatTemplateField,
    ContinueFinalMessage,
    Documents,
    Messages,
    ParallelToolCalls,
    TemplateVariables,
    ToolChoiceField,
    Tools,
)
from mm_gateway.protocol.fields import AddressedBody, KeepAlive, User, about, extension
from mm_gateway.protocol.generation import TokenIds
from mm_gateway.protocol.reasoning import BudgetField, ChatReasoning, EffortField, TokenBudgetField


class EmbeddingRequest(AddressedBody, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/embeddings`."""

    input: Annotated[
        str | Annotated[list[str | int | TokenIds], Meta(max_length=MAX_TOKEN_IDS)],
        about(f"A text, up to {MAX_PROMPTS} texts, token ids, or lists of token ids; not mixed, none empty."),
    ]
    encoding_format: Annotated[
        Literal["float", "base64"] | None, about("`float` (default): numbers; `base64`: of little-endian float32.")
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        about("Numbers of each vector; other than the model's own only where it was trained for that."),
    ] = None
    user: User = None
    keep_alive: KeepAlive = None
    add_special_tokens: Annotated[
        bool | None, extension("Put around texts what the tokenizer does, such as BOS and EOS. Default: true.")
    ] = None
    truncate_prompt_tokens: Annotated[
        int | None,
        extension(
            "At most so many tokens of each input are read (at least 1), special tokens around a text included; -1: what the context holds."
        ),
    ] = None
    truncation_side: Annotated[
        Literal["left", "right"] | None,
        extension("Which end `truncate_prompt_tokens` cuts off. Default: as the tokenizer is configured, usually `right`."),
    ] = None


class TokenizeRequest(AddressedBody, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /tokenize`, as vLLM has it: either `prompt` or `messages`."""

    prompt: Annotated[str | None, about("A text. Give either this or `messages`.")] = None
    messages: Annotated[Messages | None, about("A conversation, encoded as `/v1/chat/completions` encodes it.", minItems=1)] = None
    add_special_tokens: Annotated[
        bool | None,
        about("With what the tokenizer puts in front, such as BOS. Default: true with `prompt`, false with `messages`."),
    ] = None
    return_token_strs: Annotated[bool | None, about("Also spell the tokens as the vocabulary does.")] = None
    add_generation_prompt: AddGenerationPrompt = None
    continue_final_message: ContinueFinalMessage = None
    chat_template_kwargs: TemplateVariables = None
    chat_template: ChatTemplateField = None
    documents: Documents = None
    reasoning_effort: EffortField = None
    reasoning: Annotated[ChatReasoning | None, extension("The same as an object.")] = None
    thinking_budget: BudgetField = None
    thinking_token_budget: TokenBudgetField = None
    tools: Tools = None
    tool_choice: ToolChoiceField = None
    parallel_tool_calls: ParallelToolCalls = None


class DetokenizeRequest(AddressedBody, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /detokenize`."""

    tokens: Annotated[TokenIds, about("Token ids.", examples=[[15496, 995]])]
