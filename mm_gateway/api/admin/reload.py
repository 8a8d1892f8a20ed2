"""Takes changed files over in a running gateway: on `POST /admin/reload`, on SIGHUP, and when they are seen to have changed.

A reload reads everything first, and then puts the new in the place of the old in one step, between two requests. Requests that run keep the
model, and the key, that they began with; what they alone use is closed and unloaded when they have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from litestar import post
from litestar.datastructures import State

from mm_gateway.api.access.admission import Admission
from mm_gateway.api.access.keys import Keys
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.reread import ReadFiles, Reread, Signature
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from mm_gateway.errors import ConfigurationError, InvalidRequestError
from mm_gateway.protocol.admin import ReloadReply
from mm_gateway.work_pools import CONFIGURATION

logger = logging.getLogger(__name__)


class Reloader:
    """
    Args:
        settings: that the gateway started with. catalog, keys: take over what is new. admission: knows which requests run.

    Attributes:
        reloads, failures: since the start; a reload that found a broken file is a failure.
        errors: what was wrong with the files when they were read last; they are served as they were before.
    """

    def __init__(self, settings: Settings, catalog: Catalog, keys: Keys, admission: Admission) -> None:
        self._settings = settings
        self._files = ReadFiles(settings, settings.files, os.environ) if settings.files is not None else None
        # Now, not when the watch begins: what is written while the gateway starts is a change, too.
        self._served = self._files.signature() if self._files is not None else ()
        self._catalog = catalog
        self._keys = keys
        self._admission = admission
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.reloads = self.failures = 0
        self.errors: tuple[str, ...] = ()

    async def reload(self) -> ReloadReply:
        """Read the files, and take over what is valid of them.

        Raises:
            InvalidRequestError: a file is broken, and stays as it was; the message says which, why, and what was taken over all the same.
        """
        if self._files is None:
            raise InvalidRequestError("This gateway was not started from files, so there is nothing to read again")
        async with self._one_at_a_time:
            found = await CONFIGURATION.run(self._files.read, self._settings)
            errors = list(found.errors)
            reply = await self._take_over(found, errors)
        self.reloads += 1
        self.errors = tuple(errors)
        news = ", ".join(f"{what}: {', '.join(names)}" for what in ("added", "changed", "removed") if (names := getattr(reply, what)))
        for setting in reply.restart:
            logger.warning("reload: %s has changed, which takes a restart", setting)
        logger.info("reload: %s; %d keys of the key file", news or "the models are as they were", reply.keys)
        if errors:
            self.failures += 1
            for error in errors:
                logger.error("reload: %s; it stays as it was", error)
            taken = f" Taken over: {news}." if news else ""
            raise InvalidRequestError(f"{'; '.join(errors)}. What is broken stays as it was.{taken}", code="invalid_configuration")
        return reply

    async def watch(self, interval_s: float) -> None:
        """Reload whenever a file has changed, once it has not changed any more for `interval_s` seconds. Looks at the files instead of
        being told by the system, which tells nothing of network drives and mounted volumes."""
        if self._files is None:
            return
        served = seen = self._served
        while True:
            await asyncio.sleep(interval_s)
            now = await self._signature()
            if now == seen and now != served and await self.reload_or_log():
                served = now
            seen = now

    async def reload_or_log(self) -> bool:
        """Reload for somebody who reads the log. False: the files were not to blame, so that it is worth trying again."""
        try:
            await self.reload()
        except InvalidRequestError:
            return True  # it is in the log already
        except Exception:
            self.failures += 1
            logger.exception("reload: failed, and nothing was taken over")
            return False
        return True

    async def close(self) -> None:
        """Give up waiting for requests to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_over(self, found: Reread, errors: list[str]) -> ReloadReply:
        settings = found.settings
        await self._admission.ledger.prepare(settings.keys)
        try:
            replaced = await self._catalog.replace(settings)
        except ConfigurationError as error:  # a file that an entry names
            errors.append(str(error))
            return ReloadReply(keys=len(self._settings.keys), restart=[*found.restart])
        self._keys.replace("file", settings.keys)
        self._settings = settings
        if replaced.dropped:
            task = asyncio.create_task(self._let_go(replaced.dropped))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return ReloadReply(
            added=[*replaced.added],
            changed=[*replaced.changed],
            removed=[*replaced.removed],
            keys=len(settings.keys),
            restart=[*found.restart],
        )

    async def _let_go(self, dropped: Sequence[Backend]) -> None:
        try:
            await self._admission.drained()
        finally:
            await self._catalog.let_go(dropped)

    async def _signature(self) -> Signature:
        assert self._files is not None
        return await CONFIGURATION.run(self._files.signature)


@post("/admin/reload", status_code=200, summary="Read models.yaml and the key file again")
async def reload(state: State) -> ReloadReply:
    """What is valid takes effect without an end to any stream; a broken file is a 400 that says why, and stays as it was."""
    reloader: Reloader = state.reloader
    return await reloader.reload()
