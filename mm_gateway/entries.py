"""From the entries of `models.yaml` to backends, and all the names by which they are found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from mm_gateway.backends.groups.backend import group
from mm_gateway.backends.groups.servers import Servers
from mm_gateway.backends.hub_models import HubModels
from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.backends.upstream.translated import TranslatedBackend
from mm_gateway.configuration.group_settings import inside_out
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.price import Price, dearest
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.runtime.residency.leases import ManagerStats, ModelStatus

if TYPE_CHECKING:
    from mm_gateway.runtime.engine.stats import EngineStats


@dataclass(frozen=True)
class ReplicaGlance:
    """One of the processes that run models elsewhere, as it is now.

    Attributes:
        replica: its name, node: the address of its machine. gpus: those that it sees, as CUDA_VISIBLE_DEVICES names them.
        models: its local models, by name, with what their engines do where they are in memory. manager: of these; None: it has none.
    """

    replica: str
    node: str
    gpus: str
    models: Mapping[str, tuple[ModelStatus, EngineStats | None]]
    manager: ManagerStats | None


@dataclass(frozen=True)
class Fleet:
    """All processes that run models elsewhere. states: how many there are, by what they do. seen: those that answered just now."""

    states: Mapping[str, int] = field(default_factory=dict)
    seen: Sequence[ReplicaGlance] = ()


class Elsewhere(Protocol):
    """Where other processes run local and mock entries."""

    def backend(self, name: str, config: ModelConfig) -> Backend:
        """Of an entry."""
        ...

    async def fleet(self) -> Fleet:
        """These processes now, within a second or two."""
        ...


class Replaced(msgspec.Struct, frozen=True):
    """What a reload did to the entries, by name; and the backends that no new request gets."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    dropped: tuple[Backend, ...] = ()


class Names(msgspec.Struct, frozen=True):
    """All that a name is looked up in. Never changed: a reload puts another one in its place, so that no request sees half of it."""

    models: Mapping[str, ModelConfig]
    """The entries that the backends were made of, where they were."""
    backends: Mapping[str, Backend]
    aliases: Mapping[str, str]
    patterns: Mapping[str, str]
    default_model: str | None
    workflow_model: str | None
    hub: HubModels | None
    prices: Mapping[str, Price]
    """Of the models that have one."""
    servers: Servers = msgspec.field(default_factory=Servers)
    """Behind the members of the groups."""

    def model(self, name: str) -> Backend | None:
        """The backend of a name or an alias, or a model of the hub; None: there is none."""
        backend = self.backends.get(self.aliases.get(name, name))
        return self.hub.get(name) if backend is None and self.hub is not None else backend

    def listed(self) -> list[Backend]:
        """Of the entries, in the order of the configuration; then those of the hub that are downloaded."""
        return [*self.backends.values(), *(self.hub.downloaded() if self.hub is not None else ())]

    def replaced_by(self, new: Names) -> Replaced:
        """What becomes of the entries where `new` takes the place of these."""
        old = self.backends
        hub = self.hub.lost_in(new.hub) if self.hub is not None else ()
        return Replaced(
            added=tuple(name for name in new.backends if name not in old),
            changed=tuple(name for name in new.backends if name in old and old[name] is not new.backends[name]),
            removed=tuple(name for name in old if name not in new.backends),
            dropped=(*(backend for name, backend in old.items() if new.backends.get(name) is not backend), *hub),
        )


def needs_manager(settings: Settings) -> bool:
    """Whether anything is served by this machine."""
    return bool(settings.allow) or any(config.backend == "local" for config in settings.models.values())


def named_by(
    settings: Settings, manager: RealModelManager | None, before: Names | None = None, elsewhere: Elsewhere | None = None
) -> Names:
    """What the settings name; entries that are as they were `before` keep their backends."""
    created = int(time.time())
    kept = {name: before.backends[name] for name, config in before.models.items() if settings.models.get(name) == config} if before else {}
    backends = {
        name: kept.get(name) or _backend(name, config, manager, created, elsewhere)
        for name, config in settings.models.items()
        if config.backend != "group"
    }
    servers = before.servers if before is not None else Servers()
    for name in _groups(settings.models):
        config = settings.models[name]
        members = {member.name: backends[member.name] for member in config.members}
        backends[name] = group(name, config, members, created, before.backends.get(name) if before is not None else None, servers)
    backends = {name: backends[name] for name in settings.models}
    hub = before.hub if before is not None else None
    if manager is not None and (hub is None or hub.allow != settings.allow):
        hub = HubModels(settings.allow, manager, created, hub)
    return Names(
        settings.models,
        backends,
        {alias: name for name, config in settings.models.items() for alias in config.aliases},
        settings.anthropic.models,
        settings.default_model,
        settings.workflows.model or settings.default_model,
        hub,
        prices(settings.models),
        servers,
    )


def _groups(models: Mapping[str, ModelConfig]) -> tuple[str, ...]:
    """The names of the groups, each after its members."""
    return inside_out({name: config.members for name, config in models.items() if config.backend == "group"})


def _backend(name: str, config: ModelConfig, manager: RealModelManager | None, created: int, elsewhere: Elsewhere | None) -> Backend:
    """Of an entry that is no group."""
    if elsewhere is not None and config.backend in ("local", "mock"):
        return elsewhere.backend(name, config)
    match config.backend:
        case "mock":
            return MockBackend(name, config, created)
        case "remote":
            return (RemoteBackend if config.api == "chat" else TranslatedBackend)(name, config, created)
        case _:
            assert manager is not None
            return LocalBackend(name, config, manager, created)


def prices(models: Mapping[str, ModelConfig]) -> dict[str, Price]:
    """Of the entries that have one; a group's is that of its dearest member."""
    found = {name: config.price for name, config in models.items() if config.price is not None}
    for name in _groups(models):
        if members := [found[member.name] for member in models[name].members if member.name in found]:
            found[name] = dearest(members)
    return found


def local_configs(names: Names) -> list[ModelConfig]:
    """What this machine serves, models of the hub that were asked for included."""
    hub = names.hub.known() if names.hub is not None else ()
    return [backend.config for backend in (*names.backends.values(), *hub) if isinstance(backend, LocalBackend)]
