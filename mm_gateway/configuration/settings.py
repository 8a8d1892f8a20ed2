"""What is served and how: the typed form of `models.yaml` and `gateway.yaml`; immutable after start.

Knows the keys, their allowed values and defaults. Knows nothing of HTTP, torch or any Backend.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from mm_gateway.configuration.api_key import ApiKey

ModelType = Literal["qwen-chat", "gpt2", "chatml", "llama"]
Dtype = Literal["auto", "fp32", "fp16", "bf16"]
Quantization = Literal["8bit", "4bit", "gptq"]
ToolFormatName = Literal["hermes", "llama", "react", "plain"]
Pooling = Literal["mean", "last"]
BackendName = Literal["local", "mock", "remote"]
SearchProviderName = Literal["local", "ddgs", "searxng"]

WORKFLOW_PREFIX = "mm-orch/"
"""Before the name of a workflow as a model."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `models.yaml`; the first eight keys are the guide's."""

    model_name: str
    """A hub id (`Qwen/Qwen-7B-Chat`), a local folder, or, for `remote`, the name at the upstream server."""
    model_type: ModelType | None = None
    """The chat template; None: the checkpoint's own, else by its architecture."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else CPU), `cuda`, `cuda:N` or `cpu`."""
    dtype: Dtype = "auto"
    """`auto`: the checkpoint's own. On a CPU 16-bit types mean 16-bit weights with fp32 arithmetic."""
    quantization: Quantization | None = None
    trust_remote_code: bool = False
    flash_attention: bool = False
    max_context_length: int | None = None
    """Tokens, >= 1; clamped to what the checkpoint can do. None: the checkpoint's own."""

    backend: BackendName = "local"
    aliases: tuple[str, ...] = ()
    """Further names that clients may use."""
    chat_template: str | None = None
    """A built-in template's name or a Jinja file; wins over the checkpoint's own. None: see `model_type`."""
    tool_format: ToolFormatName | None = None
    """How tools are written for the model and its calls read back; None: by the chat template."""
    embedding_pooling: Pooling | None = None
    """How `/v1/embeddings` pools the last hidden states; None: as the checkpoint's sentence-transformers files say, else `mean`."""
    matryoshka: bool = False
    """Trained so that the beginning of an embedding is one too: `dimensions` may shorten it."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository."""
    path: str | None = None
    """Local folder to load from in place of the hub; `model_name` stays the name. In the file also `builtin:NAME`, one of the package."""
    truncate_history: bool = True
    """Leave out the oldest turns of a conversation that does not fit the context; False: refuse it."""
    pin: bool = False
    """Never evicted once loaded."""
    preload: bool = False
    """Loaded at start instead of on first use."""
    ttl_s: float | None = None
    """Seconds without use after which the model is unloaded; None: stays until its room is needed."""
    kv_cache_bytes: int | None = None
    """Memory for the KV cache; None: what its sequences can use, at most a quarter of what the budget leaves."""
    max_running: int | None = None
    """Sequences decoded together; None: `engine.max_running`."""

    base_url: str | None = None
    """remote: the upstream's address up to and including `/v1`."""
    api_key_env: str | None = None
    """remote: environment variable that holds the upstream's key."""
    timeout_s: float = 600.0
    """remote: seconds without a byte from upstream after which the request fails."""
    delay_s: float = 0.0
    """mock: seconds per token."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`server:` of `gateway.yaml`."""

    host: str = "127.0.0.1"
    port: int = 8000
    """[0, 65535]; 0: any free port."""
    api_keys: tuple[str, ...] = ()
    """Keys that clients may use, or `sha256:HEX` of them; best given as MM_GATEWAY_API_KEYS. None here nor in a file: none is asked for."""
    api_keys_file: str | None = None
    """A file of keys with their names and limits, see `key_file.py`; a path from the folder of gateway.yaml."""
    admin_keys: tuple[str, ...] = ()
    """Keys for `/admin`, best given as MM_GATEWAY_ADMIN_KEYS; none: it is off."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call from a browser, such as `https://example.org`; `*`: all; none: CORS is off."""
    max_body_bytes: int = 16 * 2**20
    early_commit_s: float = 5.0
    """A stream whose first token takes longer is answered with 200 and heartbeats from then on."""
    heartbeat_s: float = 10.0
    """Interval of heartbeat comments in a stream that waits."""
    shutdown_grace_s: float = 10.0
    """Seconds that running requests get to end after SIGTERM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits:` of `gateway.yaml`: what clients may use, and what the gateway takes on."""

    requests_per_minute: int | None = None
    """Of each key that has no limit of its own; where no keys are asked for, of all clients together. None: no limit."""
    tokens_per_minute: int | None = None
    """Likewise; tokens of prompts and replies."""
    max_requests: int = 2048
    """Requests being answered at a time, streams included, >= 1; beyond it: 429."""
    max_queued_requests: int = 1024
    """Of these, requests that wait for their first token, over all models, >= 1; beyond it: 429."""


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`memory:` of `gateway.yaml`: the cache of models."""

    max_cached_models: int = 3
    """Models resident at a time, >= 1."""
    memory_threshold: float = 0.8
    """(0, 1]: share of each device's memory that models, their KV caches included, may take together."""
    budget_bytes: int | None = None
    """Instead of memory_threshold: bytes that models may take on each device."""
    host_tier_bytes: int = 0
    """Host memory that may keep the weights of models evicted from a GPU; 0: none."""
    fallback_to_cpu: bool = False
    """Load on the CPU what does not fit the GPU."""
    ttl_s: float | None = None
    """`ttl_s` of models that set none."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`engine:` of `gateway.yaml`: defaults of every local model's engine."""

    max_running: int = 64
    """Sequences decoded together, >= 1."""
    max_step_tokens: int = 512
    """Tokens of one forward pass, decode and prefill chunks together; more gives throughput, fewer gives smoother streams."""
    max_waiting: int = 1024
    """Sequences queued per model, and requests that wait for it to load; beyond it requests get a 429."""
    prefix_cache: bool = True
    """Reuse KV entries of prompts that share a beginning."""


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`storage:` of `gateway.yaml`: what outlives a restart."""

    folder: str | None = None
    """Where sessions, stored responses and the search index live; None: `mm-gateway` in XDG_DATA_HOME, else in ~/.local/share."""
    max_responses: int = 10_000
    """Responses of `/v1/responses` kept, >= 1; beyond it the oldest go."""
    response_ttl_s: float | None = 30 * 86400.0
    """Seconds for which a response is kept; None: until its room is needed."""
    response_max_bytes: int = 2**20
    """Conversation that a response may be stored with, >= 1024; a larger one is refused unless it is not to be stored."""

    def path(self, name: str) -> Path:
        """The path of a file in the folder; neither is made here."""
        if self.folder is not None:
            return Path(self.folder).expanduser() / name
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "mm-gateway" / name


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`search:` of `gateway.yaml`: where search-qa looks, and what it may fetch."""

    provider: SearchProviderName = "local"
    """`local`: the index of your files; `ddgs`: web search (extra `search`); `searxng`: a SearXNG server."""
    max_results: int = 5
    """Sources of an answer where the request names no number, [1, 20]."""
    max_source_tokens: int = 400
    """What is read of one source at most, in tokens of the answering model, >= 100."""
    timeout_s: float = 15.0
    """Seconds that a provider gets to answer, > 0."""
    searxng_url: str | None = None
    """Address of the SearXNG server, which has to allow the format json."""
    index_paths: tuple[str, ...] = ()
    """Files and folders that `mm-gateway index` takes where it is given none."""
    index_url: str | None = None
    """What the addresses of indexed files begin with in place of their folder; None: file:// and the folder."""
    max_file_bytes: int = 32 * 2**20
    """Larger files are not indexed."""
    max_page_bytes: int = 2 * 2**20
    """Pages that are larger, once decompressed, are left out."""
    page_timeout_s: float = 10.0
    """Seconds for a page, redirects included, > 0."""
    max_redirects: int = 5
    """Redirects that are followed for a page, >= 0."""
    parallel_fetches: int = 5
    """Pages fetched at a time for one question, >= 1."""
    allow_private_addresses: bool = False
    """Fetch pages from loopback, private and link-local addresses too. Leave it off where users are not trusted."""


class WorkflowSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`workflows:` of `gateway.yaml`."""

    model: str | None = None
    """What answers in workflows that name no model themselves (`mm-orch/NAME@MODEL`); None: `default_model`, else the first entry."""
    session_ttl_s: float | None = 30 * 86400.0
    """Seconds after its last turn for which a session of chat-generate is kept; None: for good."""
    max_sessions: int = 10_000
    """Sessions kept; beyond it those go first that were used longest ago."""
    max_session_turns: int = 200
    """Turns kept of one session, the newest, >= 1."""
    max_session_tokens: int = 32_768
    """Estimated tokens kept of one session, its newest turns, >= 1."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is configured."""

    models: Mapping[str, ModelConfig] = msgspec.field(default_factory=dict)
    """Name that clients use -> its entry."""
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

    @property
    def asks_for_keys(self) -> bool:
        return bool(self.server.api_keys or self.keys)
