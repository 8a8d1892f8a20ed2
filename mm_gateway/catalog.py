"""From model name to Backend: builds every backend that the settings name, replaces them in one step, and closes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mm_gateway.backends.groups.backend import Group
from mm_gateway.backends.hub_models import HubModels
from mm_gateway.backends.local import LocalBackend
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.settings import WORKFLOW_PREFIX, Settings
from mm_gateway.core import Backend, ModelInfo
from mm_gateway.entries import Elsewhere, Fleet, Names, Replaced, local_configs, named_by, needs_manager, prices
from mm_gateway.errors import GatewayError, InvalidRequestError, ModelNotFoundError
from mm_gateway.runtime.real_model_manager import CLOSE_TIMEOUT_S, RealModelManager
from mm_gateway.runtime.residency.history import ModelEvent
from mm_gateway.runtime.residency.leases import Lease, ManagerStats, ModelStatus, leased
from mm_gateway.work_pools import MODELS
from mm_gateway.workflows.all_workflows import WORKFLOWS
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.run import WAIT_TIMEOUT_S
from mm_gateway.workflows.workflow import Workflow

if TYPE_CHECKING:
    from mm_gateway.runtime.engine.stats import EngineStats

logger = logging.getLogger(__name__)


class Catalog:
    """Backends by name.

    Args:
        backends: by the name that listings show. aliases: further name -> listed name.
        workflows: served under their names; `NAME@MODEL` picks the model that answers, `workflow_model` does where none is named,
            else the first one. workflow_wait_s: for each wait of a stage.
        default_model: for requests that name none; None: they are refused.
        patterns: of names that nothing else has -> the name that is meant.
        models: the entries that the backends were made of. elsewhere: as for `build_catalog`.
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
        models: Mapping[str, ModelConfig] | None = None,
        manager: RealModelManager | None = None,
        hub: HubModels | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._names = Names(
            models or {},
            dict(backends),
            dict(aliases or {}),
            dict(patterns or {}),
            default_model,
            workflow_model,
            hub,
            prices(models or {}),
        )
        self._manager = manager
        self._elsewhere = elsewhere
        self._workflows = {f"{WORKFLOW_PREFIX}{workflow.name}": workflow for workflow in workflows}
        self._workflow_wait_s = workflow_wait_s
        self._created = int(time.time())
        self._listeners: list[Callable[[ModelConfig, ModelEvent], object]] = []

    @property
    def default_model(self) -> str | None:
        """For requests that name none; None: they are refused."""
        return self._names.default_model

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further name -> listed name."""
        return self._names.aliases

    def resolve(self, name: str) -> Backend:
        """The backend of a name, an alias, a hub model, or a workflow, which may name its model: `mm-orch/lesson-pack@gpt2`.

        Raises:
            ModelNotFoundError: there is none; the message lists those that are.
        """
        backend = self._names.model(name)
        if backend is not None:
            return backend
        head, at, model = name.partition("@")
        if head in self._workflows:
            return self._over(name, self._workflows[head], model if at else None)
        meant = next((target for pattern, target in self._names.patterns.items() if fnmatchcase(name, pattern)), None)
        if meant is None or meant == name:
            raise ModelNotFoundError(name, (*self._names.backends, *self._workflows))
        return self.resolve(meant)

    @property
    def prices(self) -> Mapping[str, Price]:
        """Of the models that have one."""
        return self._names.prices

    def price_of(self, backend: Backend) -> Price | None:
        """What the tokens of a backend cost, those of a workflow as its model's; None: nothing."""
        if not self._names.prices:
            return None
        return self._names.prices.get((backend.model if isinstance(backend, WorkflowBackend) else backend).info().id)

    def infos(self) -> list[ModelInfo]:
        """Every model as it is now, in the order of the configuration; then those of the hub that are downloaded; then the workflows."""
        return [backend.info() for backend in (*self._names.listed(), *map(self.resolve, self._workflows))]

    def knows(self, name: str) -> bool:
        """Whether a model, or a workflow over one, is known to have this name; names that patterns allow are those that clients make up."""
        names = self._names
        head, _, model = name.partition("@")
        if head in self._workflows:
            return not model or self.knows(names.aliases.get(model, model))
        return name in names.backends or (names.hub is not None and names.hub.knows(name))

    async def look_at_cache(self) -> None:
        """See which models of the hub are downloaded, for `infos`."""
        if (hub := self._names.hub) is not None:
            await hub.look_at_cache()

    def _over(self, name: str, workflow: Workflow, model: str | None) -> WorkflowBackend:
        names = self._names
        chosen = model if model is not None else names.workflow_model or next(iter(names.backends), "")
        backend = names.model(chosen)
        if backend is None:
            raise ModelNotFoundError(chosen, tuple(names.backends))
        return WorkflowBackend(name, workflow, backend, self._created, self._workflow_wait_s)

    async def start(self) -> None:
        """Read what is known of models before they load, and begin to load what is to be preloaded, which is not waited for. A failure
        is logged, and tried again on first use."""
        await self._read_files(self._names.backends.values())
        self._preload(self._names.backends.values())

    async def replace(self, settings: Settings) -> Replaced:
        """Serve what the settings name from now on: models, allowed ones, `default_model`. An entry that is as it was keeps its backend.

        Requests that run keep the backends that they found, until they end; then hand what was dropped to `let_go`. Not to be called
        again before it returned.
        """
        names = self._names
        if self._manager is None and self._elsewhere is None and needs_manager(settings):
            self._manager = RealModelManager.from_settings(settings.memory, settings.engine)
            for listener in self._listeners:
                self._manager.on_event(listener)
        new = named_by(settings, self._manager, names, self._elsewhere)
        fresh = [backend for name, backend in new.backends.items() if names.backends.get(name) is not backend]
        await self._read_files(fresh)
        self._names = new
        if self._manager is not None:
            self._manager.serve(local_configs(new))
        self._preload(fresh)
        return names.replaced_by(new)

    async def let_go(self, dropped: Iterable[Backend]) -> None:
        """Close backends that no request uses any more; of local ones, what is in memory for them alone leaves."""
        backends = list(dropped)
        for backend in backends:
            await backend.close()
        if self._manager is not None:
            self._manager.forget(backend.config for backend in backends if isinstance(backend, LocalBackend))

    async def _read_files(self, backends: Iterable[Backend]) -> None:
        await asyncio.gather(*(backend.read_files() for backend in backends if isinstance(backend, LocalBackend)))

    def _preload(self, backends: Iterable[Backend]) -> None:
        for config in (backend.config for backend in backends if isinstance(backend, LocalBackend)):
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

    def groups(self) -> list[Group]:
        return [backend for backend in self._names.backends.values() if isinstance(backend, Group)]

    def drain(self, name: str, draining: bool) -> None:
        """Have no group send a model new requests, or new ones again; requests that name the model itself are served.

        Raises:
            ModelNotFoundError: there is no such model. InvalidRequestError: it is in no group.
        """
        backend = self.resolve(name)
        held = [(holder, member) for holder in self.groups() for member, of_group in holder.members.items() if of_group is backend]
        if not held:
            raise InvalidRequestError(f"The model `{name}` is a member of no group, so there is nothing to drain", param="model")
        for holder, member in held:
            holder.drain(member, draining)

    def model_events(self) -> tuple[ModelEvent, ...]:
        """Which local models came, left and failed, and why; the newest first."""
        return () if self._manager is None else self._manager.events()

    def on_model_event(self, listener: Callable[[ModelConfig, ModelEvent], object]) -> None:
        """Tell of each from now on, with the configuration that the model was loaded by; from any thread, which must not be blocked."""
        self._listeners.append(listener)
        if self._manager is not None:
            self._manager.on_event(listener)

    def glance(self) -> list[tuple[ModelConfig, ModelStatus, EngineStats | None]]:
        """Every local model that was ever asked for, as it is now, and what its engine does, where it has one."""
        return [] if self._manager is None else self._manager.glance()

    def local_configs(self) -> dict[str, ModelConfig]:
        """The local entries, by name."""
        return {name: backend.config for name, backend in self._names.backends.items() if isinstance(backend, LocalBackend)}

    def manager_stats(self) -> ManagerStats | None:
        """A glance at the local models; None where nothing is local."""
        return None if self._manager is None else self._manager.stats()

    async def fleet(self) -> Fleet | None:
        """The processes that run local models elsewhere, as they are now; None: this one does."""
        return None if self._elsewhere is None else await self._elsewhere.fleet()

    def _managed(self, name: str) -> tuple[RealModelManager, LocalBackend]:
        backend = self.resolve(name)
        if not isinstance(backend, LocalBackend) or self._manager is None:
            raise InvalidRequestError(f"The model `{name}` is not a local one, so there is nothing to load or unload", param="model")
        return self._manager, backend

    async def close(self) -> None:
        """Close every backend and workflow, and unload every model; idempotent."""
        for backend in self._names.backends.values():
            await backend.close()
        for workflow in self._workflows.values():
            await workflow.close()
        if self._manager is not None:
            # The pool may be full of unloads that wait; what they wait for ends with `begin_close`.
            self._manager.begin_close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(MODELS.run(self._manager.close), CLOSE_TIMEOUT_S)


def build_catalog(settings: Settings, elsewhere: Elsewhere | None = None) -> Catalog:
    """The catalog that the settings describe. Loads nothing yet.

    Args:
        elsewhere: where other processes run local and mock entries. None: this one does.
    """
    here = elsewhere is None and needs_manager(settings)
    manager = RealModelManager.from_settings(settings.memory, settings.engine) if here else None
    names = named_by(settings, manager, elsewhere=elsewhere)
    return Catalog(
        names.backends,
        aliases=names.aliases,
        workflows=[workflow.from_settings(settings) for workflow in WORKFLOWS.values()],
        workflow_model=names.workflow_model,
        workflow_wait_s=settings.workflows.wait_timeout_s,
        default_model=names.default_model,
        patterns=names.patterns,
        models=names.models,
        manager=manager,
        hub=names.hub,
        elsewhere=elsewhere,
    )


def _release_preloaded(future: Future[Lease]) -> None:
    try:
        future.result().release()
    except GatewayError as error:
        logger.warning("preloading failed: %s", error)
