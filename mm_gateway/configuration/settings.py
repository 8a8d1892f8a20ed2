"""What is served and how: the typed form of `models.yaml` and `gateway.yaml`. A reload makes new ones, and changes none.

Knows the keys, their allowed values, defaults and descriptions: the loader checks by them, and the configuration reference is made of them.
Knows nothing of HTTP, torch or any Backend.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.anthropic_settings import AnthropicSettings
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.configuration.ranges import (
    AtLeastOne,
    AtLeastOneKiB,
    AtLeastZero,
    Device,
    NotNegative,
    Origin,
    Port,
    Positive,
    Running,
    Share,
)
from mm_gateway.configuration.ray_settings import RaySettings
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.tracing_settings import TracingSettings
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

WORKFLOW_PREFIX = "mm-orch/"
"""Before the name of a workflow as a model."""


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


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`price` of an entry of `models.yaml`: of a million tokens each, in whatever currency the budgets are in."""

    input: NotNegative = 0.0
    cached_input: NotNegative | None = None
    """Of prompt tokens that were cached; None: as any others."""
    output: NotNegative = 0.0

    def __post_init__(self) -> None:
        if math.inf in (self.input, self.cached_input, self.output):
            raise ValueError("a price must be finite")

    def cost(self, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """Of a request. cached_tokens: of the prompt's, which other servers may say to be more than it has."""
        cached_tokens = min(cached_tokens, prompt_tokens)
        return ((prompt_tokens - cached_tokens) * self.input + cached_tokens * self.cached + output_tokens * self.output) / 1e6

    @property
    def cached(self) -> float:
        """Of prompt tokens that were cached."""
        return self.input if self.cached_input is None else self.cached_input


def dearest(prices: Sequence[Price]) -> Price:
    """What tokens cost at most where one of these holds, at least one."""
    return (
        prices[0]
        if len(prices) == 1
        else Price(
            input=max(price.input for price in prices),
            cached_input=max(price.cached for price in prices),
            output=max(price.output for price in prices),
        )
    )


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


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`server:` of `gateway.yaml`."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 or :: for all of this machine's.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port to listen on; 0: any free port.")] = 8000
    api_keys: Annotated[
        tuple[str, ...],
        Meta(description="Keys that clients may use, or `sha256:HEX` of them; best given as MM_GATEWAY_API_KEYS. No key: open to all."),
    ] = ()
    api_keys_file: Annotated[
        str | None,
        Meta(description="A file of keys with names and limits of their own; a path from the folder of gateway.yaml."),
    ] = None
    admin_keys: Annotated[
        tuple[str, ...], Meta(description="Keys for `/admin`, best given as MM_GATEWAY_ADMIN_KEYS; none: it is off.")
    ] = ()
    metrics_key: Annotated[
        str | None,
        Meta(
            description="A key for `/metrics`, or `sha256:HEX` of it; best given as MM_GATEWAY_METRICS_KEY. Admin keys open it too. null: "
            "admin keys alone open it where clients need keys, and everybody may see it where they do not."
        ),
    ] = None
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(description="Origins whose web pages may call from a browser, such as `https://example.org`; `*`: all; none: CORS is off."),
    ] = ()
    page: Annotated[
        bool, Meta(description="Whether `/` is the page for people; what it shows it asks of the API, with the keys that its reader has.")
    ] = True
    max_body_bytes: Annotated[AtLeastOneKiB, Meta(description="Largest body of a request; beyond it: 413.")] = 16 * 2**20
    unknown_fields: Annotated[
        Literal["refuse", "ignore"],
        Meta(description="Unknown fields of a body: a 400, or left out and named in `x-mm-gateway-ignored`. Remote models get them."),
    ] = "refuse"
    early_commit_s: Annotated[
        Positive, Meta(description="A stream whose first token takes longer is answered with 200 and heartbeats from then on.")
    ] = 5.0
    heartbeat_s: Annotated[Positive, Meta(description="Interval of heartbeat comments in a stream that waits.")] = 10.0
    head_timeout_s: Annotated[
        Positive, Meta(description="Seconds for the headers of a request, from the opening of its connection on; beyond it: 408.")
    ] = 20.0
    body_timeout_s: Annotated[
        Positive, Meta(description="Seconds for the body of a request, and one more for each 4 KiB that has come; beyond it: 408.")
    ] = 30.0
    keep_alive_timeout_s: Annotated[Positive, Meta(description="Seconds for which a connection waits for another request.")] = 15.0
    write_timeout_s: Annotated[
        Positive, Meta(description="Seconds in which a client that is 64 KiB behind must catch up, or its connection is closed.")
    ] = 120.0
    reload_interval_s: Annotated[
        NotNegative,
        Meta(
            description="Seconds between looks at models.yaml and the key file, whose changes take effect in the running gateway; "
            "0: only SIGHUP and `POST /admin/reload` read them again."
        ),
    ] = 1.0
    shutdown_grace_s: Annotated[NotNegative, Meta(description="Seconds that running requests get to end after SIGTERM.")] = 10.0
    request_log: Annotated[
        Literal["off", "text", "json"],
        Meta(description="One line a request on stdout, for people or for machines: id, key, model, tokens, times; never contents."),
    ] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="What is logged, from this level up.")] = "info"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits:` of `gateway.yaml`: what clients may use, and what the gateway takes on."""

    requests_per_minute: Annotated[
        AtLeastOne | None,
        Meta(
            description="Requests a minute of each key that has no limit of its own; without keys, of all clients together. null: no limit."
        ),
    ] = None
    tokens_per_minute: Annotated[AtLeastOne | None, Meta(description="Likewise, tokens of prompts and replies.")] = None
    max_requests: Annotated[AtLeastOne, Meta(description="Requests being answered at a time, streams included; beyond it: 429.")] = 2048
    max_queued_requests: Annotated[
        AtLeastOne, Meta(description="Of these, requests that wait for their first token, over all models; beyond it: 429.")
    ] = 1024
    max_background_responses: Annotated[
        AtLeastOne, Meta(description="Responses of `background: true` that wait or run at a time; beyond it: 429.")
    ] = 64
    max_waiting_connections: Annotated[
        AtLeastOne,
        Meta(description="Connections without a whole request; beyond it the oldest of the address with most of them is closed."),
    ] = 4096
    max_held_bytes: Annotated[
        AtLeastOneKiB,
        Meta(description="Bytes of all requests that are not answered yet; beyond it the largest that is still arriving gets a 429."),
    ] = 512 * 2**20


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`memory:` of `gateway.yaml`: the cache of models."""

    max_cached_models: Annotated[AtLeastOne, Meta(description="Models in memory at a time.")] = 3
    memory_threshold: Annotated[
        Share, Meta(description="Share of each device's memory that models, their KV caches included, may take together.")
    ] = 0.8
    budget_bytes: Annotated[
        AtLeastOne | None, Meta(description="Instead of memory_threshold: bytes that models may take on each device.")
    ] = None
    host_tier_bytes: Annotated[
        AtLeastZero, Meta(description="Host memory that may keep the weights of models evicted from a GPU; 0: none.")
    ] = 0
    fallback_to_cpu: Annotated[bool, Meta(description="Load on the CPU what does not fit the GPU.")] = False
    ttl_s: Annotated[
        NotNegative | None,
        Meta(description="Seconds without use after which a model that sets no `ttl_s` is unloaded; null: when its room is needed."),
    ] = None
    room_timeout_s: Annotated[
        Positive,
        Meta(
            description="Seconds for which a request waits for other models to make room; then it gets a 503 that says what it waited for."
        ),
    ] = 300.0
    load_timeout_s: Annotated[
        Positive, Meta(description="Seconds without any progress after which a download or a load has failed; its thread is given up.")
    ] = 1800.0


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`engine:` of `gateway.yaml`: defaults of every local model's engine."""

    max_running: Annotated[Running, Meta(description="Sequences decoded together.")] = 64
    max_step_tokens: Annotated[
        AtLeastOne,
        Meta(description="Tokens of one forward pass, decode and prefill together; more gives throughput, fewer gives smoother streams."),
    ] = 512
    compiled_forward: Annotated[
        bool,
        Meta(description="On a CPU, compute Llama-shaped models by one compiled call a step; false: by the modules of transformers."),
    ] = True
    prompt_lookup: Annotated[
        bool,
        Meta(
            description="Guess how a text goes on from what came before, and check several tokens a step: faster where it repeats, and "
            "the same text in any case. Of models that `compiled_forward` computes."
        ),
    ] = True
    max_waiting: Annotated[
        AtLeastOne, Meta(description="Sequences queued per model, and requests that wait for it to load; beyond it requests get a 429.")
    ] = 1024
    prefix_cache: Annotated[bool, Meta(description="Reuse KV entries of prompts that share a beginning.")] = True
    prefix_cache_bytes: Annotated[
        AtLeastZero,
        Meta(
            description="Host memory, taken from what models may take, for KV entries of prompts that had to leave a model's KV cache on "
            "a CPU, or whose model was unloaded; they come back faster than they are computed. 0: they are lost."
        ),
    ] = 0
    prefix_cache_folder: Annotated[
        str | None,
        Meta(
            description="Where they are written to as well, so that a restart finds them; needs `prefix_cache_bytes`, in which they wait "
            "to be written. Prompts can be made out from its files, which are not encrypted. Several gateways may share it. null: nowhere."
        ),
    ] = None
    prefix_cache_folder_bytes: Annotated[
        AtLeastOne, Meta(description="Bytes of the files of `prefix_cache_folder`; beyond it those used longest ago go.")
    ] = 16 * 2**30


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`storage:` of `gateway.yaml`: what outlives a restart."""

    folder: Annotated[
        str | None,
        Meta(
            description="Where sessions, stored responses, keys, usage and the index live; null: `mm-gateway` in XDG_DATA_HOME, else in "
            "~/.local/share."
        ),
    ] = None
    usage_days: Annotated[
        AtLeastOne, Meta(description="Days for which the usage of keys is kept, by day, model and endpoint; budgets need 31 of them.")
    ] = 400
    max_responses: Annotated[AtLeastOne, Meta(description="Responses of `/v1/responses` kept; beyond it the oldest go.")] = 10_000
    response_ttl_s: Annotated[
        Positive | None, Meta(description="Seconds for which a response is kept; null: until its room is needed.")
    ] = 30 * 86400.0
    response_max_bytes: Annotated[
        AtLeastOneKiB,
        Meta(description="Conversation that a response may be stored with; a larger one is refused unless it is sent with store: false."),
    ] = 2**20

    def path(self, name: str) -> Path:
        """The path of a file in the folder; neither is made here."""
        if self.folder is not None:
            return Path(self.folder).expanduser() / name
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "mm-gateway" / name


class WorkflowSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`workflows:` of `gateway.yaml`."""

    model: Annotated[
        str | None,
        Meta(description="What answers in workflows where `mm-orch/NAME@MODEL` names none; null: `default_model`, else the first entry."),
    ] = None
    wait_timeout_s: Annotated[
        Positive, Meta(description="Seconds in which a search, a page, a session, or each next event of the model has to come.")
    ] = 1800.0
    session_ttl_s: Annotated[
        Positive | None, Meta(description="Seconds after its last turn for which a session of chat-generate is kept; null: for good.")
    ] = 30 * 86400.0
    max_sessions: Annotated[AtLeastOne, Meta(description="Sessions kept; beyond it those go first that were used longest ago.")] = 10_000
    max_session_turns: Annotated[AtLeastOne, Meta(description="Turns kept of one session, the newest.")] = 200
    max_session_tokens: Annotated[AtLeastOne, Meta(description="Estimated tokens kept of one session, the newest.")] = 32_768


class SettingsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where the settings were read from."""

    models: Path
    gateway: Path

    def keys_of(self, server: ServerSettings) -> Path | None:
        """The key file that a section names; None: it names none."""
        return None if server.api_keys_file is None else self.gateway.parent / Path(server.api_keys_file).expanduser()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is configured."""

    models: Mapping[str, ModelConfig] = msgspec.field(default_factory=dict[str, ModelConfig])
    """Name that clients use -> its entry."""
    allow: tuple[str, ...] = ()
    """Patterns of hub models that requests may name without an entry."""
    default_model: str | None = None
    """For the command line and workflows where none is named; None: the first entry."""
    server: ServerSettings = ServerSettings()
    keys: tuple[ApiKey, ...] = ()
    """Those of `server.api_keys_file`."""
    limits: LimitSettings = LimitSettings()
    memory: MemorySettings = MemorySettings()
    engine: EngineSettings = EngineSettings()
    storage: StorageSettings = StorageSettings()
    search: SearchSettings = SearchSettings()
    workflows: WorkflowSettings = WorkflowSettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    tracing: TracingSettings = TracingSettings()
    ray: RaySettings = RaySettings()
    files: SettingsFiles | None = None
    """None: they come from no files, so nothing can be read again."""

    @property
    def asks_for_keys(self) -> bool:
        return bool(self.server.api_keys or self.keys)
