"""Models of the hub that requests may name though no entry lists them: `allow` of models.yaml.

A name becomes a backend with the defaults of an entry. Nothing is kept of a name until the hub, or its cache, is known to have it: whoever
makes up names makes nothing grow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mm_gateway.backends.local import LocalBackend
from mm_gateway.configuration.hub_names import is_allowed, is_gguf_file, split_file
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import DownloadError, ModelNotFoundError
from mm_gateway.work_pools import HUB

if TYPE_CHECKING:
    from mm_gateway.runtime.real_model_manager import RealModelManager

LISTING_S = 5.0
"""For which what was seen in the cache is listed before it is looked at again."""


class HubModels:
    """Backends by the name of their repository.

    Args:
        allow: patterns of names, as `allow` of models.yaml; none: there are no such models.
        manager: of the local models. created: Unix seconds at which the gateway started.
        before: what these take the place of; models that both allow keep their backends.
    """

    def __init__(self, allow: Sequence[str], manager: RealModelManager, created: int, before: HubModels | None = None) -> None:
        self.allow = tuple(allow)
        self._manager = manager
        self._created = created
        known = before._known if before is not None else {}
        self._known = {name: backend for name, backend in known.items() if is_allowed(split_file(name)[0], self.allow)}
        self._downloaded: list[str] = []
        self._looked_at = -LISTING_S

    def get(self, name: str) -> HubBackend | None:
        """The backend of a repository, or of a GGUF file in one: `NAME:FILE`. None where no pattern allows the repository.

        Asks nobody, so there may be no such repository or file.
        """
        repository, file = split_file(name)
        if not is_allowed(repository, self.allow) or (file is not None and not is_gguf_file(file)):
            return None
        return self._known.get(name) or HubBackend(name, self._manager, self._created, self._known)

    def knows(self, name: str) -> bool:
        """Whether it is one of `known`."""
        return name in self._known

    def known(self) -> tuple[HubBackend, ...]:
        """Those that were asked for, and that there are."""
        return tuple(self._known.values())

    def lost_in(self, after: HubModels | None) -> tuple[HubBackend, ...]:
        """Of those known, what others do not know."""
        kept = set(after.known()) if after is not None else set[HubBackend]()
        return tuple(backend for backend in self._known.values() if backend not in kept)

    def downloaded(self) -> list[HubBackend]:
        """Those that the cache held when it was looked at last."""
        return [backend for name in self._downloaded if (backend := self.get(name)) is not None]

    async def look_at_cache(self) -> None:
        """See what is downloaded, unless that was done just now."""
        if not self.allow or time.monotonic() - self._looked_at < LISTING_S:
            return
        self._looked_at = time.monotonic()
        self._downloaded = await HUB.run(_downloaded, self.allow)


def _downloaded(allow: Sequence[str]) -> list[str]:
    # The hub's library takes half a second to import, which gateways without such models need not pay.
    from mm_gateway.hub.cached_models import complete_models
    from mm_gateway.runtime.checkpoints.files import wanted_files, weight_files

    def choose(there: Sequence[str]) -> Sequence[str]:
        return wanted_files(there, weights=True, code=False) if weight_files(there) else []

    return complete_models(partial(is_allowed, patterns=allow), choose)


class HubBackend(LocalBackend):
    """A repository of the hub, or a GGUF file in one, with the defaults of an entry.

    Args:
        known: where to stand once there is such a repository.
    """

    def __init__(self, name: str, manager: RealModelManager, created: int, known: dict[str, HubBackend]) -> None:
        # The revision says that no folder of that name is meant.
        repository, file = split_file(name)
        super().__init__(name, ModelConfig(model_name=repository, revision="main", gguf_file=file), manager, created)
        self._known = known

    async def find(self) -> None:
        """Raises ModelNotFoundError where the hub has no such repository or file, DownloadError where it cannot be asked."""
        if self._name in self._known:
            return
        from mm_gateway.hub.download import find

        try:
            await HUB.run(find, self.config.model_name, revision=self.config.revision, file=self.config.gguf_file)
        except DownloadError as error:
            if error.missing:
                raise ModelNotFoundError(self._name) from error
            raise
        self._known.setdefault(self._name, self)
