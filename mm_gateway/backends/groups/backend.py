"""A group as a Backend: sends each request to the member that the router names, to another one where it fails before its first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from random import Random
from typing import Any, TypeVar, cast

from mm_gateway.backends.groups.places import Places
from mm_gateway.backends.groups.probes import Probes
from mm_gateway.backends.groups.router import Attempt, Member, Router
from mm_gateway.backends.groups.servers import Servers
from mm_gateway.backends.groups.told import Details, member_told
from mm_gateway.backends.groups.verdicts import Verdict, verdict_of
from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    Backend,
    ChatInput,
    ForwardedBody,
    ForwardingBackend,
    GenerationEvent,
    GenerationRequest,
    Ignored,
    LimitedBackend,
    ModelInfo,
    ProbedBackend,
    Progress,
    ReplyFields,
    Tokenized,
    TokenizingBackend,
    UsageSoFar,
)
from mm_gateway.errors import GatewayError, InvalidRequestError, ModelUnavailableError, UpstreamError
from mm_gateway.timeline import answered_by

T = TypeVar("T")

_UNLOADED = ("cold", "evicting", "failed")
"""States of a model whose next request waits for a load. One that loads is not among them: others load it as long."""
LOOK_S = 1.0
"""For which what the members say of their contexts is taken to hold."""
_NOT_YET = (Ignored, ReplyFields, UsageSoFar)
"""Said of a reply before it begins. Held back until it does: of a member that fails then, the client must not be told."""


class Group:
    """One `backend: group` entry of `models.yaml`.

    Args:
        name: the entry's name. config: the entry. members: the backends that it names, which it does not own.
        created: Unix seconds at which the gateway started. servers: that other groups ask too; None: there are no others.
        random, clock: for tests; the clock is that of the event loop.

    Attributes:
        router: decides who is asked, and knows how the members do.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        members: Mapping[str, Backend],
        created: int,
        servers: Servers | None = None,
        *,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.members = members
        self.config = config
        self._now = clock
        self._created = created
        known = servers or Servers()
        behind = {name: known.at(str(backend.info().details.get("base_url") or name)) for name, backend in members.items()}
        self.router = Router(config.members, config.strategy, config.routing, random or Random(), behind)
        self._limited = {name: backend for name, backend in members.items() if isinstance(backend, LimitedBackend)}
        probed = {name: backend for name, backend in members.items() if isinstance(backend, ProbedBackend)}
        self._probes = Probes(probed, config.routing.probe_interval_s, config.routing.probe_timeout_s, self._probed)
        self._places = Places(name, self.router, clock)
        self._looked_at = -LOOK_S
        self._elsewhere = False

    @property
    def waiting(self) -> int:
        """Requests that wait for a member with room."""
        return self._places.waiting

    def info(self) -> ModelInfo:
        """Its context is the smallest of its members': what any of them can hold."""
        self._look_at_members()
        now = self._now()
        contexts = [member.context_length for member in self.router.members.values() if member.context_length is not None]
        asked = [member for member in self.router.members.values() if not member.draining and member.health.state(now) != "ejected"]
        state = "failed" if not asked else "ready" if any(member.warm for member in asked) else "cold"
        return ModelInfo(
            id=self.name,
            created=self._created,
            backend="group",
            state=state,
            context_length=min(contexts, default=None),
            aliases=self.config.aliases,
            elsewhere=self._elsewhere,
            details=Details(self._details),
        )

    def _details(self) -> dict[str, Any]:
        now = self._now()
        members = self.router.members
        return {
            "strategy": self.config.strategy,
            "members": [member_told(member, self.members[name].info(), now) for name, member in members.items()],
            "requests": {"running": sum(member.running for member in members.values()), "waiting": self.waiting},
        }

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        return self._answer(self._wants(request), lambda backend: backend.generate(request))

    def drain(self, member: str, draining: bool) -> None:
        """Send a member no new requests, or new ones again. Those that it answers go on."""
        self.router.members[member].draining = draining
        self._places.offer()

    async def probe(self, timeout_s: float) -> bool:
        """Whether any member is there, as far as is known."""
        now = self._now()
        if all(member.draining or member.health.state(now) == "ejected" for member in self.router.members.values()):
            raise ModelUnavailableError(f"No member of {self.name} serves", retryable=True)
        return True

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        return await self._first(lambda backend: backend.tokenize(input, add_special_tokens=add_special_tokens))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await self._first(lambda backend: backend.detokenize(tokens))

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        return await self._first(lambda backend: backend.count_tokens(texts))

    async def close(self) -> None:
        """Its members are closed by whoever owns them."""
        await self._probes.close()

    def _wants(self, request: GenerationRequest | ForwardedBody) -> Wanted:
        return Wanted(request, self.config.routing.max_wait_s)

    async def _answer(self, wanted: Wanted, ask: Callable[[Backend], AsyncIterator[GenerationEvent]]) -> AsyncGenerator[GenerationEvent]:
        """The events of the first member that replies."""
        router = self.router
        self._probes.begin()
        router.came()
        retries = 0
        said_no: GatewayError | None = None
        failed = False
        while True:
            self._look_at_members()
            attempt = await self._places.take(wanted, None if failed else said_no)
            replied = ended = False
            events = self._until_begun(attempt, ask(self.members[attempt.member.name]))
            try:
                async with aclosing(events):
                    async for event in events:
                        replied = replied or not isinstance(event, Progress)
                        yield event
                return
            except GatewayError as error:
                verdict = verdict_of(error)
                self._learn(attempt.member)
                self._places.give_back(attempt, verdict, str(error))
                ended = True
                if replied or not self._goes_elsewhere(wanted, attempt.member, verdict, error) or not router.may_retry(self._now()):
                    raise
                failed = failed or verdict.kind == "failed"
                said_no = said_no or (error if verdict.kind in ("unfit", "too small") else None)
            finally:
                if not ended:
                    self._places.give_back(attempt)
            await asyncio.sleep(router.retry_delay_s(retries))
            retries += 1

    async def _until_begun(self, attempt: Attempt, events: AsyncIterator[GenerationEvent]) -> AsyncGenerator[GenerationEvent]:
        """A member's events, none of them but progress before its reply begins."""
        held: list[GenerationEvent] = []
        begun = False
        # Closed here, so that the member's work has ended when its place is given to another request.
        async with aclosing(cast("AsyncGenerator[GenerationEvent]", events)):
            while not begun:
                try:
                    async with asyncio.timeout(self.config.routing.first_token_timeout_s):
                        event = await anext(events)
                except StopAsyncIteration:
                    raise UpstreamError(f"{attempt.member.name} ended without a reply") from None
                except TimeoutError:
                    waited = self.config.routing.first_token_timeout_s
                    raise UpstreamError(f"{attempt.member.name} gave no sign of a reply for {waited} s", status=504) from None
                if isinstance(event, Progress):
                    yield event
                    continue
                held.append(event)
                begun = not isinstance(event, _NOT_YET)
            self._learn(attempt.member)
            self.router.first_token(attempt, self._now())
            if not isinstance(self.members[attempt.member.name], Group):
                answered_by(attempt.member.name)
            self._places.offer()
            for event in held:
                yield event
            async for event in events:
                yield event

    def _goes_elsewhere(self, wanted: Wanted, member: Member, verdict: Verdict, error: GatewayError) -> bool:
        """Whether another member may answer; the request knows then which one is not to be asked again."""
        match verdict.kind:
            case "failed" | "unfit":
                wanted.tried[member.name] = str(error)
            case "busy":
                pass  # its limits keep others away from it too, and it may be asked again
            case "too small" if member.context_length is not None:
                wanted.refused_context = max(wanted.refused_context, member.context_length)
                larger = (other.context_length or 0 for other in self.router.members.values())
                return any(context > wanted.refused_context for context in larger)
            case _:
                return False
        return True

    async def _first(self, call: Callable[[TokenizingBackend], Awaitable[T]]) -> T:
        """What the first member says that can; those that are in trouble come last. Says nothing of their health."""
        now = self._now()
        failed: GatewayError | None = None
        order = sorted(self.router.members.values(), key=lambda member: member.health.state(now) == "ejected")
        for member in order:
            backend = self.members[member.name]
            if not isinstance(backend, TokenizingBackend):
                continue
            try:
                return await call(backend)
            except GatewayError as error:
                if verdict_of(error).kind in ("refused", "too small"):
                    raise
                failed = failed or error
        raise failed or InvalidRequestError(f"No member of {self.name} has a tokenizer of its own", param="model")

    def _look_at_members(self) -> None:
        """What they say of themselves, which for many takes a while."""
        now = self._now()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        infos = {name: backend.info() for name, backend in self.members.items()}
        self._elsewhere = any(info.elsewhere for info in infos.values())
        for name, info in infos.items():
            member = self.router.members[name]
            member.context_length = info.context_length
            member.loaded = info.state not in _UNLOADED

    def _learn(self, member: Member) -> None:
        if (backend := self._limited.get(member.name)) is not None:
            self.router.learned(member, backend.allowance)

    def _probed(self, name: str, failure: str | None) -> None:
        self.router.probed(self.router.members[name], failure, self._now())
        self._places.offer()


class ForwardingGroup(Group):
    """A group before other servers alone: what clients send goes to one of them as it came."""

    def forward(self, body: ForwardedBody) -> AsyncIterator[GenerationEvent]:
        return self._answer(self._wants(body), lambda backend: cast(ForwardingBackend, backend).forward(body))


def group(
    name: str,
    config: ModelConfig,
    members: Mapping[str, Backend],
    created: int,
    before: Backend | None = None,
    servers: Servers | None = None,
) -> Group:
    """The group of an entry. What is forwarded has to be understood by nobody here, so that all members have to be servers elsewhere.

    Args:
        before: what the name stood for before a reload. The same group is kept; of another one, which members are drained.
        servers: as for `Group`.
    """
    if isinstance(before, Group) and before.config == config and before.members == members:
        return before
    forwards = all(isinstance(backend, ForwardingBackend) for backend in members.values())
    made = (ForwardingGroup if forwards else Group)(name, config, members, created, servers)
    if isinstance(before, Group):
        for member, backend in members.items():
            if before.members.get(member) is backend:
                made.router.members[member].draining = before.router.members[member].draining
    return made
