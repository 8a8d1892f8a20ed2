"""Who may begin: the bounds of the whole gateway and the limits of each principal, as one ticket per request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from litestar import Request
from litestar.exceptions import HTTPException, InternalServerException
from litestar.handlers import BaseRouteHandler

from mm_gateway.api.access.capacity import Capacity
from mm_gateway.api.access.keys import key_of, principal
from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.access.rate_limits import Budget, SharedBuckets
from mm_gateway.api.connection import HTTPConnection, HTTPRequest
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.server_settings import LimitSettings
from mm_gateway.core import Backend, CompletionInput, ForwardedBody, GenerationRequest, Usage
from mm_gateway.errors import GatewayError

BYTES_PER_TOKEN = 4


class Admission:
    """A Litestar guard, after that of the keys: gives every request its ticket, which `GatewayApp` closes after the reply.

    Limits per minute are one per configured key, and one for everybody where no keys are asked for. They live as long as the process, or
    are those of all gateways that share a database. Budgets by day and month are the ledger's.
    """

    def __init__(
        self, limits: LimitSettings, ledger: Ledger, clock: Callable[[], float] = time.monotonic, shared: SharedBuckets | None = None
    ) -> None:
        self._limits = limits
        self._shared = shared
        self.ledger = ledger
        self._clock = clock
        self._budgets: dict[bytes, tuple[ApiKey, Budget | None]] = {}
        self.tickets: set[Ticket] = set()
        """Of the requests that are being answered; `record` of each says how far it is, `on_interrupt` ends it."""
        self._drains: list[tuple[set[Ticket], asyncio.Event]] = []
        self.live = Capacity(limits.max_requests, "being answered", clock)
        self.queued = Capacity(limits.max_queued_requests, "waiting for their first token", clock)

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if connection.scope["method"] == "POST":  # type: ignore[typeddict-item]
            # A place is for work: who sends a byte of a body and waits must not keep one from others.
            self.live.check()
            await _whole_body(connection)
        state = connection.scope["state"]
        state["record"].endpoint = connection.scope["path_template"]  # whoever looks at running requests asks for it before their end
        key = key_of(connection)
        ticket = state["ticket"] = Ticket(self, key, self._budget(key), state["record"])
        ticket.record.key = principal(connection)
        ticket.enter()
        # Looking something up is not what the limits of OpenAI count.
        if connection.scope["method"] == "POST":  # type: ignore[typeddict-item]
            await ticket.count()

    def apart(self, connection: HTTPConnection) -> Ticket:
        """A ticket for work that outlives the request which asks for it, with all that is known of that; whoever takes it closes it.

        Raises:
            RateLimitError: the gateway is full.
        """
        asking: Ticket = connection.scope["state"]["ticket"]
        key = key_of(connection)
        ticket = Ticket(self, key, self._budget(key), asking.record)
        ticket.backend, ticket.body_bytes = asking.backend, asking.body_bytes
        ticket.enter()
        return ticket

    def interrupt(self, error: GatewayError) -> int:
        """End the generations that run, each with this error as its outcome; how many there were."""
        running = [ticket.on_interrupt for ticket in self.tickets if ticket.on_interrupt is not None]
        for on_interrupt in running:
            on_interrupt(error)
        return len(running)

    async def drained(self) -> None:
        """Wait until the requests that are being answered now have ended; those that come later do not count."""
        running, ended = set(self.tickets), asyncio.Event()
        if running:
            drain = (running, ended)
            self._drains.append(drain)
            try:
                await ended.wait()
            finally:
                self._drains.remove(drain)

    def left(self, ticket: Ticket) -> None:
        """A request has ended."""
        self.tickets.discard(ticket)
        self.live.leave()
        for running, ended in self._drains:
            running.discard(ticket)
            if not running:
                ended.set()

    def _budget(self, key: ApiKey | None) -> Budget | None:
        limited = key or ApiKey(digest=b"")
        known = self._budgets.get(limited.digest)
        if known is None or known[0] != limited:  # a reload may have changed its limits
            known = self._budgets[limited.digest] = (limited, self._new_budget(limited))
        return known[1]

    def _new_budget(self, key: ApiKey) -> Budget | None:
        limits = self._limits
        requests = limits.requests_per_minute if key.requests_per_minute is None else key.requests_per_minute
        tokens = limits.tokens_per_minute if key.tokens_per_minute is None else key.tokens_per_minute
        return None if requests is None and tokens is None else Budget(requests, tokens, self._clock, self._shared, key.digest.hex())


class Ticket:
    """One request: what it took of the bounds and of its principal's budget, given back or put right when it ends.

    Attributes:
        record: what is known of the request. backend: what answers it, body_bytes: size of its body, once that is known.
        on_interrupt: ends the generation with an error; None while there is none.
    """

    __slots__ = ("_admission", "_budget", "_estimate", "_key", "_live", "_queued", "backend", "body_bytes", "on_interrupt", "record")

    def __init__(self, admission: Admission, key: ApiKey | None, budget: Budget | None, record: RequestRecord) -> None:
        self._admission = admission
        self._key = key
        self._budget = budget
        self.record = record
        self._live = self._queued = False
        self._estimate = 0
        self.backend: Backend | None = None
        self.body_bytes = 0
        self.on_interrupt: Callable[[GatewayError], None] | None = None

    def enter(self) -> None:
        """Be one of the requests that are answered.

        Raises:
            RateLimitError: the gateway is full.
        """
        self._admission.live.enter()
        self._live = True
        self._admission.tickets.add(self)

    async def count(self) -> None:
        """Be one of the principal's requests per minute.

        Raises:
            RateLimitError: it had them.
        """
        if self._budget is not None:
            await self._budget.take_request()

    async def begin(self, output_tokens: int = 0, price: Price | None = None, prices: Mapping[str, Price] | None = None) -> None:
        """Queue for the first token. Prompts are guessed from the size of the body, and put right by `end`.

        Args:
            output_tokens: at most so many, as far as the request says. price: of the tokens, at most; None: they cost nothing.
            prices: of models by name, where it takes the end to know which one answered.

        Raises:
            RateLimitError: the queue is full, or the principal had its tokens; a QuotaExceededError: it used up its budget.
            StorageError: what it used of its budget cannot be known now.
        """
        record = self.record
        record.prices = prices or {}
        record.price, record.prompt_guess = price, self.body_bytes // BYTES_PER_TOKEN + 1
        if self._key is not None:
            await self._admission.ledger.admit(self._key, record, output_tokens)
        if self._budget is not None:
            await self._budget.take_tokens(record.prompt_guess + output_tokens)
            self._estimate = record.prompt_guess + output_tokens
        self._admission.queued.enter()
        self._queued = True
        record.begun = time.monotonic()

    def first_event(self) -> None:
        """It does not wait any more."""
        if self._queued:
            self._queued = False
            self._admission.queued.leave()

    def end(self, usage: Usage | None, events: int, *, failed: bool = False) -> None:
        """The generation is over.

        Args:
            usage: None where it was broken off; then the prompt counts as guessed, and every event as a token.
            failed: by an error; one before the first event costs nothing.
        """
        self.first_event()
        if usage is not None:
            self._use(usage.prompt_tokens + usage.completion_tokens)
        else:
            self._use(0 if failed and not events else self.record.prompt_guess + events)

    def close(self) -> None:
        """The reply is out, whatever it was; idempotent. What was taken for a generation that never began is given back."""
        self.first_event()
        self._use(0)
        if self._live:
            self._live = False
            self._admission.left(self)

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [] if self._budget is None else self._budget.headers()

    def _use(self, tokens: int) -> None:
        if self._budget is not None and self._estimate:
            self._budget.correct_tokens(self._estimate, tokens)
            self._estimate = 0


async def _whole_body(connection: HTTPConnection) -> None:
    """Wait for it; whoever needs it finds it in the request.

    Raises:
        HTTPException: the connection closed before.
    """
    assert isinstance(connection, Request)
    try:
        await connection.body()
    except InternalServerException as error:
        connection.scope["state"]["record"].client_gone = True
        # Litestar's word for a client that hung up amid its body: no fault of ours, and nobody reads the answer.
        raise HTTPException(status_code=400, detail="The connection was closed before the body was complete") from error


def ticket_of(request: HTTPRequest) -> Ticket:
    """The ticket of a request behind the guard."""
    return request.scope["state"]["ticket"]


def output_tokens(request: GenerationRequest | ForwardedBody) -> int:
    """What a request may generate by its own limit; 0 where it sets none, or one that is clamped: the end of it tells."""
    if isinstance(request, ForwardedBody):
        return request.output_tokens
    prompts = len(request.input.prompts) if isinstance(request.input, CompletionInput) else 1
    choices = max(request.config.n, request.best_of or 1)
    return prompts * choices * (request.config.required_room or 0)
