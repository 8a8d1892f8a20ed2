"""An entry of `models.yaml` in its typed form: what a model is, what answers for it, and how.

The loader checks by it, and the configuration reference is made of it. Knows nothing of HTTP, torch or any Backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.ranges import AtLeastOne, AtLeastZero, Device, DraftLength, NotNegative, Positive, Running
from mm_gateway.core import DEFAULT_BUDGETS, Effort
from mm_gateway.core.limits import MinP, RepetitionPenalty, Temperature, TopK, TopP

ModelType = Literal["qwen-chat", "gpt2", "chatml", "llama"]
Dtype = Literal["auto", "fp32", "fp16", "bf16"]
KVCacheDtype = Literal["auto", "fp32", "fp16", "int8"]
Quantization = Literal["8bit", "4bit", "gptq", "awq", "compressed-tensors", "fp8", "mxfp4", "bitsandbytes", "torchao"]
ToolFormatName = Literal[
    "cohere",
    "deepseek-v3",
    "deepseek-v3.1",
    "glm",
    "granite",
    "harmony",
    "hermes",
    "hunyuan",
    "kimi",
    "lfm2",
    "llama",
    "minimax",
    "mistral",
    "mistral-call-id",
    "mistral-list",
    "phi4",
    "plain",
    "python",
    "qwen3-xml",
    "react",
    "seed-xml",
]
ReasoningFormatName = Literal["think", "mistral", "seed", "kimi", "cohere", "gemma", "harmony"]
Pooling = Literal["mean", "last"]
BackendName = Literal["local", "mock", "remote", "group"]


class ThinkingBudgets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`thinking_budgets` of an entry of `models.yaml`: tokens by effort; None: the default."""

    minimal: AtLeastZero | None = None
    low: AtLeastZero | None = None
    medium: AtLeastZero | None = None
    high: AtLeastZero | None = None
    xhigh: AtLeastZero | None = None

    def by_effort(self) -> Mapping[Effort, int]:
        """Those that are set."""
        found: dict[Effort, int | None] = msgspec.structs.asdict(self)  # type: ignore[assignment]
        return {effort: tokens for effort, tokens in found.items() if tokens is not None}


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sampling` of an entry of `models.yaml`, in the ranges of `GenerationConfig`; None: as the checkpoint says."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `models.yaml`; the first eight keys are the guide's."""

    model_name: Annotated[
        str,
        Meta(
            description="A hub id (`Qwen/Qwen-7B-Chat`), a local folder, or, for `remote`, the name at the upstream server. "
            "A group has none."
        ),
    ]
    model_type: Annotated[
        ModelType | None, Meta(description="The chat template; null: the checkpoint's own, else by its architecture.")
    ] = None
    device: Annotated[
        Device, Meta(description="Where the model runs: `auto` (CUDA where there is one, else CPU), `cuda`, `cuda:N` or `cpu`.")
    ] = "auto"
    dtype: Annotated[
        Dtype,
        Meta(
            description="Type of the weights; `auto`: the checkpoint's own. On a CPU 16-bit types mean 16-bit weights with fp32 arithmetic."
        ),
    ] = "auto"
    quantization: Annotated[
        Quantization | None,
        Meta(
            description="8bit or 4bit: how weights are packed at load. The others name what a checkpoint is quantized with already, which "
            "its files say as well: null takes it from them."
        ),
    ] = None
    trust_remote_code: Annotated[bool, Meta(description="Run the Python code that comes with the checkpoint.")] = False
    flash_attention: Annotated[bool, Meta(description="Use FlashAttention where the package and the device have it.")] = False
    max_context_length: Annotated[
        AtLeastOne | None, Meta(description="Longest context in tokens, clamped to what the checkpoint can do. null: the checkpoint's own.")
    ] = None

    backend: Annotated[
        BackendName,
        Meta(
            description="What answers: a model in this process, the mock, a remote OpenAI-compatible server, or a group of other entries."
        ),
    ] = "local"
    aliases: Annotated[tuple[str, ...], Meta(description="Further names that clients may use.")] = ()
    chat_template: Annotated[
        str | None, Meta(description="A built-in template's name or a Jinja file; wins over the checkpoint's own. null: see `model_type`.")
    ] = None
    tool_format: Annotated[
        ToolFormatName | None, Meta(description="How tools are written for the model and its calls read back; null: by the chat template.")
    ] = None
    reasoning_format: Annotated[
        ReasoningFormatName | None, Meta(description="How the model writes its thoughts; null: as its chat template shows.")
    ] = None
    sampling: Annotated[
        SamplingDefaults, Meta(description="What a request that leaves them open is sampled with; default: as the checkpoint says.")
    ] = SamplingDefaults()
    thinking_budgets: Annotated[
        ThinkingBudgets,
        Meta(
            description="Tokens of thought at most, by the effort of a request. Default, where the chat template knows no efforts: "
            f"{', '.join(f'{effort} {tokens}' for effort, tokens in DEFAULT_BUDGETS.items())}; no limit for the others."
        ),
    ] = ThinkingBudgets()
    embedding_pooling: Annotated[
        Pooling | None,
        Meta(
            description="How `/v1/embeddings` pools hidden states; null: as the checkpoint's sentence-transformers files say, else `mean`."
        ),
    ] = None
    matryoshka: Annotated[
        bool, Meta(description="The model is trained so that the beginning of an embedding is one too: `dimensions` may shorten it.")
    ] = False
    kv_cache_dtype: Annotated[
        KVCacheDtype,
        Meta(
            description="What keys and values are kept in on a CPU: `fp32`, `fp16`, or `int8` with a scale for each 32 numbers of a head. "
            "`auto`: fp32 where the weights are; else fp16, where one compiled call computes the model's layers, as both others need."
        ),
    ] = "auto"
    revision: Annotated[str | None, Meta(description="Branch, tag or commit of the hub repository.")] = None
    path: Annotated[
        str | None,
        Meta(
            description="What to load from in place of the hub: a folder, a GGUF file, `builtin:NAME` for a model of this package, or "
            "`package:NAME/FILE` for a file in an installed package; `model_name` stays."
        ),
    ] = None
    gguf_file: Annotated[
        str | None, Meta(description="The GGUF file to load, where a hub repository or a folder holds several; its name there.")
    ] = None
    truncate_history: Annotated[
        bool, Meta(description="Leave out the oldest turns of a conversation that does not fit the context; false: refuse it.")
    ] = True
    pin: Annotated[bool, Meta(description="Keep the model in memory once it is loaded.")] = False
    preload: Annotated[bool, Meta(description="Load the model at start instead of on first use.")] = False
    ttl_s: Annotated[
        NotNegative | None, Meta(description="Seconds without use after which the model is unloaded; null: stays until its room is needed.")
    ] = None
    kv_cache_bytes: Annotated[
        AtLeastOne | None,
        Meta(description="Memory for the KV cache; null: what its sequences can use, at most a quarter of what the budget leaves."),
    ] = None
    speculative_model: Annotated[
        ModelConfig | str | None,
        Meta(
            description="A small local model that guesses what this one says next: the name of another entry, or keys as of one. Several "
            "tokens then come in one step, and the text is the same in any case. It has to have the same tokens, and is loaded beside "
            "this one. For models on a CPU that `compiled_forward` computes."
        ),
    ] = None
    speculative_tokens: Annotated[
        DraftLength | None,
        Meta(description="Tokens that `speculative_model` guesses at a time; null: as many as pay, by what is measured."),
    ] = None
    max_running: Annotated[Running | None, Meta(description="Sequences decoded together; null: `engine.max_running`.")] = None

    price: Annotated[
        Price | None,
        Meta(
            description="What a million tokens cost, for usage and budgets in money: `{input: 0.15, cached_input: 0.075, output: 0.6}`; "
            "thoughts are output. null: nothing."
        ),
    ] = None
    base_url: Annotated[str | None, Meta(description="remote: the upstream's address up to and including `/v1`.")] = None
    api: Annotated[
        Literal["chat", "responses", "messages"],
        Meta(
            description="remote: how the upstream is asked: `chat` (OpenAI's chat completions, text completions and embeddings), "
            "`responses` (OpenAI's), or `messages` (Anthropic's). Clients reach it through any endpoint."
        ),
    ] = "chat"
    api_key_env: Annotated[str | None, Meta(description="remote: environment variable that holds the upstream's key.")] = None
    timeout_s: Annotated[
        Positive, Meta(description="remote: seconds without a byte of a stream, or for a whole reply, after which the request fails.")
    ] = 600.0
    delay_s: Annotated[NotNegative, Meta(description="mock: seconds per token.")] = 0.0
    script: Annotated[
        str | None,
        Meta(description="mock: a file of replies, texts and calls, that are given in turn; a path from the folder of this file."),
    ] = None
    members: Annotated[tuple[GroupMember, ...], Meta(description="group: the entries that answer, as names or with the keys below.")] = ()
    strategy: Annotated[
        Strategy,
        Meta(
            description="group: which member is asked: the one with the fewest requests for its weight; one after the other; by "
            "weight; the first in order that can; or the one where a conversation's beginning is in the KV cache."
        ),
    ] = "least-loaded"
    routing: Annotated[GroupRouting, Meta(description="group: limits of waiting, retries and health; see below.")] = GroupRouting()


def model_names(models: Mapping[str, ModelConfig]) -> dict[str, str]:
    """Every name and alias of entries -> the entry's name."""
    return {known: name for name, config in models.items() for known in (name, *config.aliases)}


_NOT_OF_DRAFTS: Mapping[str, Any] = {
    "aliases": (),
    "pin": False,
    "preload": False,
    "ttl_s": None,
    "price": None,
    "speculative_model": None,
    "speculative_tokens": None,
}


def as_draft(config: ModelConfig) -> ModelConfig:
    """An entry without what does not change how it guesses, so that a change of that loads nothing anew."""
    return msgspec.structs.replace(config, **_NOT_OF_DRAFTS)


def not_of_drafts(keys: Iterable[str]) -> list[str]:
    """Of an entry's keys those that mean nothing for a model that guesses."""
    return [key for key in keys if key in _NOT_OF_DRAFTS]
