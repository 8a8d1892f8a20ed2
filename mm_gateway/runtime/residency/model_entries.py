"""The models that were ever asked for, by what loads them, and which of them are served now."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.residency.leases import Waiter
from mm_gateway.runtime.residency.model import Model
from mm_gateway.runtime.residency.model_entry import ModelEntry, entry_key, meant_by, on_cpu


class ModelEntries:
    """Guarded by the cache's lock, but for `find`.

    Args:
        models: the state machine's, which come and go with their entries. fallback_to_cpu: a model may be served on the CPU as well.
    """

    def __init__(self, models: dict[Hashable, Model[Waiter]], *, fallback_to_cpu: bool) -> None:
        self._models = models
        self._fallback_to_cpu = fallback_to_cpu
        self._entries: dict[Hashable, ModelEntry] = {}
        self._served: frozenset[Hashable] = frozenset()

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self._entries.values())

    def find(self, config: ModelConfig) -> ModelEntry | None:
        """The model that a configuration means; None where it was never asked for."""
        return self._entries.get(entry_key(config))

    def of(self, model: Model[Waiter]) -> ModelEntry:
        return self._entries[model.key]

    def ensure(self, config: ModelConfig) -> ModelEntry:
        """The model that a configuration means, which is asked for now."""
        key = entry_key(config)
        entry = self._entries.get(key)
        if entry is None:
            model = self._models[key] = Model[Waiter](key, ttl_s=config.ttl_s)
            entry = self._entries[key] = ModelEntry(config, model)
        if config not in entry.configs:
            entry.configs.add(config)
            entry.model.pinned |= config.pin
        return entry

    def pin(self, config: ModelConfig, pinned: bool) -> None:
        """Also where it had to go to the CPU."""
        self.ensure(config).model.pinned = pinned
        fallback = self.find(on_cpu(config))
        if self._fallback_to_cpu and fallback is not None:
            fallback.model.pinned = pinned

    def serve(self, configs: Iterable[ModelConfig]) -> None:
        """These are what is served from now on: names, TTLs and pins become theirs; what none of them means is pinned no more."""
        meant = meant_by(configs, fallback_to_cpu=self._fallback_to_cpu)
        self._served = frozenset(meant)
        for key, entry in self._entries.items():
            entry.adopt(meant.get(key, []))

    def forget(self, configs: Iterable[ModelConfig]) -> None:
        """Mark what of these nothing that is served means."""
        for key in meant_by(configs, fallback_to_cpu=True).keys() - self._served:
            if (entry := self._entries.get(key)) is not None:
                entry.forgotten = True

    def forgotten(self) -> list[Model[Waiter]]:
        return [entry.model for entry in self if entry.forgotten]

    def drop_forgotten(self) -> None:
        """Keep nothing of those that nobody uses any more."""
        for model in self.forgotten():
            if model.phase == "cold" and not model.waiters:
                del self._entries[model.key], self._models[model.key]

    def drop_host_copies(self) -> None:
        for entry in self:
            entry.host_copy = None
