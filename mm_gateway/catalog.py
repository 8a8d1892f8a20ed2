"""From model name to Backend: builds every backend that the settings name, and closes them; immutable after start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mm_gateway.backends.hub_models import HubModels
from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.backends.upstream.translated import TranslatedBackend
from mm_gateway.configuration.settings import WORKFLOW_PREFIX, ModelConfig, Settings
from mm_gateway.core import Backend, ModelInfo
from mm_gateway.errors import GatewayError, InvalidRequestError, ModelNotFoundError
from mm_gateway.runtime.real_model_manager import CLOSE_TIMEOUT_S, RealModelManager
from mm_gateway.runtime.residency.history import ModelEvent
from mm_gateway.runtime.residency.leases import Lease, ManagerStats, ModelStatus, leased
from mm_gateway.runtime.residency.model_entry import entry_key, on_cpu
from mm_gateway.work_pools import MODELS
from mm_gateway.workflows.all_workflows import WORKFLOWS
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.run import WAIT_TIMEOUT_S
from mm_gateway.workflows.workflow import Workflow

if TYPE_CHECKING:
    from mm_gateway.runtime.engine.stats import EngineStats

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalModel:
    """A local model as it is now. engine: None where it is not in memory."""

    name: str
    status: ModelStatus
    engine: EngineStats | None


class Catalog:
    """Backends by name.

    Args:
        backends: by the name that listings show. aliases: further name -> listed name.
        workflows: served under their names; `NAME@MODEL` picks the model that answers, `workflow_model` does where none is named,
            else the first one. workflow_wait_s: for each wait of a stage.
        default_model: for requests that name none; None: they are refused.
        patterns: of names that nothing else has -> the name that is meant.
        manager: of the local models, closed with the catalog. hub: models that requests may name without an entry.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        aliases: Mapping[str, str] | None = None,
        workflows: Sequence[Workflow] = (),
        workflow_model: str | None = None,
        workflow_wait_s: float = WAIT_TIMEOUT_S,
        default_model: str | None = None,
        patterns: Mapping[str, str] | None = None,
        manager: RealModelManager | None = None,
        hub: HubModels | None = None,
    ) -> None:
        self.default_model = default_model
        self._backends = dict(backends)
        self.aliases = dict(aliases or {})
        self._patterns = dict(patterns or {})
        self._manager = manager
        self._hub = hub
        self._workflows = {f"{WORKFLOW_PREFIX}{workflow.name}": workflow for workflow in workflows}
        self._workflow_model = workflow_model
        self._workflow_wait_s = workflow_wait_s
        self._created = int(time.time())

    def resolve(self, name: str) -> Backend:
        """The backend of a name, an alias, a hub model, or a workflow, which may name its model: `mm-orch/lesson-pack@gpt2`.

        Raises:
            ModelNotFoundError: there is none; the message lists those that are.
        """
        backend = self._model(name)
        if backend is not None:
            return backend
        head, at, model = name.partition("@")
        if head in self._workflows:
            return self._over(name, self._workflows[head], model if at else None)
        meant = next((target for pattern, target in self._patterns.items() if fnmatchcase(name, pattern)), None)
        if meant is None or meant == name:
            raise ModelNotFoundError(name, (*self._backends, *self._workflows))
        return self.resolve(meant)

    def infos(self) -> list[ModelInfo]:
        """Every model as it is now, in the order of the configuration; then those of the hub that are downloaded; then the workflows."""
        hub = self._hub.downloaded() if self._hub is not None else []
        return [backend.info() for backend in (*self._backends.values(), *hub)] + [self.resolve(name).info() for name in self._workflows]

    async def look_at_cache(self) -> None:
        """See which models of the hub are downloaded, for `infos`."""
        if self._hub is not None:
            await self._hub.look_at_cache()

    def _model(self, name: str) -> Backend | None:
        backend = self._backends.get(self.aliases.get(name, name))
        return self._hub.get(name) if backend is None and self._hub is not None else backend

    def _over(self, name: str, workflow: Workflow, model: str | None) -> WorkflowBackend:
        chosen = model if model is not None else self._workflow_model or next(iter(self._backends), "")
        backend = self._model(chosen)
        if backend is None:
            raise ModelNotFoundError(chosen, tuple(self._backends))
        return WorkflowBackend(name, workflow, backend, self._created, self._workflow_wait_s)

    async def start(self) -> None:
        """Read what is known of models before they load, and begin to load what is to be preloaded, which is not waited for. A failure
        is logged, and tried again on first use."""
        local = [backend for backend in self._backends.values() if isinstance(backend, LocalBackend)]
        await asyncio.gather(*(backend.read_files() for backend in local))
        for config in (backend.config for backend in local):
            if config.preload or config.pin:
                assert self._manager is not None
                self._manager.acquire(config).add_done_callback(_release_preloaded)

    async def load(self, name: str) -> None:
        """Bring a local model into memory; returns when it is there.

        Raises:
            ModelNotFoundError: there is no such model. InvalidRequestError: it is not local. Else what loading raises.
        """
        manager, backend = self._managed(name)
        await backend.find()
        async with leased(manager.acquire(backend.config)):
            return

    async def unload(self, name: str) -> None:
        """Take a local model out of memory once nobody uses it, which is waited for; errors as for `load`."""
        manager, backend = self._managed(name)
        await MODELS.run(manager.unload, backend.config)

    async def pin(self, name: str, pinned: bool) -> None:
        """Keep a local model in memory once it is there, or no longer; errors as for `load`."""
        manager, backend = self._managed(name)
        await backend.find()
        manager.pin(backend.config, pinned)

    def model_events(self) -> tuple[ModelEvent, ...]:
        """Which local models came, left and failed, and why; the newest first."""
        return () if self._manager is None else self._manager.events()

    def on_model_event(self, listener: Callable[[str, ModelEvent], object]) -> None:
        """Tell of each from now on, with the name that the model is served by; from any thread, which must not be blocked."""
        if self._manager is not None:
            self._manager.on_event(lambda config, event: listener(self._name_of(config), event))

    def local_models(self) -> list[LocalModel]:
        """Every local model of the configuration, and every other one that was asked for, as it is now."""
        found: dict[str, LocalModel] = {}
        for config, status, engine in self._manager.glance() if self._manager is not None else ():
            name = self._name_of(config)
            if name not in found or engine is not None:
                found[name] = LocalModel(name, status, engine)
        for name, backend in self._backends.items():
            if isinstance(backend, LocalBackend) and name not in found:
                found[name] = LocalModel(name, ModelStatus("cold"), None)
        return list(found.values())

    def _name_of(self, config: ModelConfig) -> str:
        """The entry that means what was loaded by this configuration, on whichever device; else, of a model of the hub, its own name."""
        local = {name: backend.config for name, backend in self._backends.items() if isinstance(backend, LocalBackend)}
        same = (name for name, other in local.items() if entry_key(other) == entry_key(config))
        moved = (name for name, other in local.items() if entry_key(on_cpu(other)) == entry_key(config))
        return next(same, None) or next(moved, None) or config.model_name

    def manager_stats(self) -> ManagerStats | None:
        """A glance at the local models; None where nothing is local."""
        return None if self._manager is None else self._manager.stats()

    def _managed(self, name: str) -> tuple[RealModelManager, LocalBackend]:
        backend = self.resolve(name)
        if not isinstance(backend, LocalBackend) or self._manager is None:
            raise InvalidRequestError(f"The model `{name}` is not a local one, so there is nothing to load or unload", param="model")
        return self._manager, backend

    async def close(self) -> None:
        """Close every backend and workflow, and unload every model; idempotent."""
        for backend in self._backends.values():
            await backend.close()
        for workflow in self._workflows.values():
            await workflow.close()
        if self._manager is not None:
            # The pool may be full of unloads that wait; what they wait for ends with `begin_close`.
            self._manager.begin_close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(MODELS.run(self._manager.close), CLOSE_TIMEOUT_S)


def build_catalog(settings: Settings) -> Catalog:
    """The catalog that the settings describe. Loads nothing yet."""
    created = int(time.time())
    backends: dict[str, Backend] = {}
    served_here = bool(settings.allow) or any(config.backend == "local" for config in settings.models.values())
    manager = RealModelManager.from_settings(settings.memory, settings.engine) if served_here else None
    for name, config in settings.models.items():
        match config.backend:
            case "mock":
                backends[name] = MockBackend(name, config, created)
            case "remote":
                backends[name] = (RemoteBackend if config.api == "chat" else TranslatedBackend)(name, config, created)
            case "local":
                assert manager is not None
                backends[name] = LocalBackend(name, config, manager, created)
    return Catalog(
        backends,
        aliases={alias: name for name, config in settings.models.items() for alias in config.aliases},
        workflows=[workflow.from_settings(settings) for workflow in WORKFLOWS.values()],
        workflow_model=settings.workflows.model or settings.default_model,
        workflow_wait_s=settings.workflows.wait_timeout_s,
        default_model=settings.default_model,
        patterns=settings.anthropic.models,
        manager=manager,
        hub=HubModels(settings.allow, manager, created) if manager is not None else None,
    )


def _release_preloaded(future: Future[Lease]) -> None:
    try:
        future.result().release()
    except GatewayError as error:
        logger.warning("preloading failed: %s", error)
