"""From model name to Backend: builds every backend that the settings name, and closes them; immutable after start."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.mock import MockBackend
from mm_gateway.backends.remote import RemoteBackend
from mm_gateway.core import Backend, ModelInfo
from mm_gateway.errors import GatewayError, ModelNotFoundError
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.settings import ModelConfig, Settings

logger = logging.getLogger(__name__)


class Catalog:
    """Backends by name.

    Args:
        backends: by the name that listings show. aliases: further name -> listed name.
        manager: of the local models, closed with the catalog. preload: local models to load at start.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        aliases: Mapping[str, str] | None = None,
        manager: RealModelManager | None = None,
        preload: tuple[ModelConfig, ...] = (),
    ) -> None:
        self._backends = dict(backends)
        self._aliases = dict(aliases or {})
        self._manager = manager
        self._preload = preload

    def resolve(self, name: str) -> Backend:
        """The backend of a name or alias.

        Raises:
            ModelNotFoundError: there is none; the message lists those that are.
        """
        backend = self._backends.get(self._aliases.get(name, name))
        if backend is None:
            raise ModelNotFoundError(name, tuple(self._backends))
        return backend

    def infos(self) -> list[ModelInfo]:
        """Every model as it is now, in the order of the configuration."""
        return [backend.info() for backend in self._backends.values()]

    async def start(self) -> None:
        """Begin to load what is to be preloaded; does not wait for it. A failure is logged, and tried again on first use."""
        for config in self._preload:
            assert self._manager is not None
            self._manager.acquire(config).add_done_callback(_release_preloaded)

    async def close(self) -> None:
        """Close every backend and unload every model; idempotent."""
        for backend in self._backends.values():
            await backend.close()
        if self._manager is not None:
            await asyncio.to_thread(self._manager.close)


def build_catalog(settings: Settings) -> Catalog:
    """The catalog that the settings describe. Loads nothing yet."""
    created = int(time.time())
    backends: dict[str, Backend] = {}
    manager: RealModelManager | None = None
    for name, config in settings.models.items():
        match config.backend:
            case "mock":
                backends[name] = MockBackend(name, config, created)
            case "remote":
                backends[name] = RemoteBackend(name, config, created)
            case "local":
                manager = manager or RealModelManager.from_settings(settings.memory, settings.engine)
                backends[name] = LocalBackend(name, config, manager, created)
    return Catalog(
        backends,
        aliases={alias: name for name, config in settings.models.items() for alias in config.aliases},
        manager=manager,
        preload=tuple(config for config in settings.models.values() if config.backend == "local" and (config.preload or config.pin)),
    )


def _release_preloaded(future) -> None:  # type: ignore[no-untyped-def]
    try:
        future.result().release()
    except GatewayError as error:
        logger.warning("preloading failed: %s", error)
