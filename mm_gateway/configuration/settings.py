"""Everything that is configured, in its typed form, with the sections of `gateway.yaml` that have no module of their own.

A reload makes new ones, and changes none.
Knows the keys, their allowed values, defaults and descriptions: the loader checks by them, and the configuration reference is made of them.
Knows nothing of HTTP, torch or any Backend.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mm_gateway.configuration.anthropic_settings import AnthropicSettings
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.ranges import (
    AtLeastOne,
    AtLeastOneKiB,
    AtLeastZero,
    NotNegative,
    Positive,
    Running,
    Share,
)
from mm_gateway.configuration.ray_settings import RaySettings
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.tracing_settings import TracingSettings

WORKFLOW_PREFIX = "mm-orch/"
"""Before the name of a workflow as a model."""


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
        AtLeastOne | None,
        Meta(
            description="Tokens of one forward pass, decode and prefill together; more gives throughput, fewer gives smoother streams. "
            "null: 256 on a CPU, where more gives nothing, else 512."
        ),
    ] = None
    compiled_forward: Annotated[
        bool,
        Meta(description="On a CPU, compute models of known families by one compiled call a step; false: by the modules of transformers."),
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

    url: Annotated[
        str | None,
        Meta(
            description="A PostgreSQL database, `postgresql://USER@HOST/NAME`, that several gateways share: sessions, stored responses, "
            "keys, usage and limits are in it in place of files; needs the extra `postgres`. Best given as MM_GATEWAY_STORAGE_URL. A "
            "password that is not in the address comes from PGPASSWORD or PGPASSFILE. null: files in `folder`."
        ),
    ] = None
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

    def place(self, name: str) -> Path | str:
        """Where a store is: the database, or the file of that name."""
        return self.path(name) if self.url is None else self.url

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
