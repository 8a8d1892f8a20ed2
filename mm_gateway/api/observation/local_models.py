"""The local models by the names that clients know, which the manager does not: it has what they are loaded by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.entries import Fleet
from mm_gateway.runtime.residency.leases import ModelStatus
from mm_gateway.runtime.residency.model_entry import entry_key, on_cpu

if TYPE_CHECKING:
    from mm_gateway.runtime.engine.stats import EngineStats


@dataclass(frozen=True)
class LocalModel:
    """A local model as it is now. engine: None where it is not in memory. replica, node: of the process that runs it, where others do."""

    name: str
    status: ModelStatus
    engine: EngineStats | None
    replica: str = ""
    node: str = ""


def models_of(fleet: Fleet) -> list[LocalModel]:
    """Those of all processes that run models elsewhere."""
    return [
        LocalModel(name, status, engine, seen.replica, seen.node) for seen in fleet.seen for name, (status, engine) in seen.models.items()
    ]


def local_models(catalog: Catalog) -> list[LocalModel]:
    """Those of the configuration, and every other one that was asked for."""
    found: dict[str, LocalModel] = {}
    configs = catalog.local_configs()
    for config, status, engine in catalog.glance():
        name = name_of(config, configs)
        if name not in found or engine is not None:
            found[name] = LocalModel(name, status, engine)
    for name in configs:
        found.setdefault(name, LocalModel(name, ModelStatus("cold"), None))
    return list(found.values())


def name_of(config: ModelConfig, entries: Mapping[str, ModelConfig]) -> str:
    """The entry that means what is loaded by this configuration, on whichever device; else, of a model of the hub, its own name."""
    same = (name for name, entry in entries.items() if entry_key(entry) == entry_key(config))
    moved = (name for name, entry in entries.items() if entry_key(on_cpu(entry)) == entry_key(config))
    return next(same, None) or next(moved, None) or config.model_name
