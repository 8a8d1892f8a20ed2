"""What one principal may use in a minute, and how its replies say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mm_gateway.errors import RateLimitError
from mm_gateway.token_bucket import TokenBucket, duration


class SharedBuckets(Protocol):
    """The buckets that several gateways take from."""

    async def take(self, name: str, bucket: TokenBucket, amount: int, now: float) -> float:
        """As `TokenBucket.take`; `bucket` is what this gateway knows of the shared one."""
        ...

    def correct(self, name: str, bucket: TokenBucket, amount: int) -> None:
        """As `TokenBucket.correct`."""
        ...


class Budget:
    """Requests and tokens of one principal.

    Args:
        requests_per_minute, tokens_per_minute: None: no limit. clock: monotonic seconds.
        shared: takes from the buckets of all gateways; None: this one has its own. name: of the principal there.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        clock: Callable[[], float],
        shared: SharedBuckets | None = None,
        name: str = "",
    ) -> None:
        self._clock = clock
        self._shared = shared
        self._name = name
        self._requests = TokenBucket(requests_per_minute, clock()) if requests_per_minute is not None else None
        self._tokens = TokenBucket(tokens_per_minute, clock()) if tokens_per_minute is not None else None

    async def take_request(self) -> None:
        """One request.

        Raises:
            RateLimitError: there was one too many.
        """
        await self._take(self._requests, 1, "requests")

    async def take_tokens(self, estimate: int) -> None:
        """What a request will need, before it runs.

        Raises:
            RateLimitError: that is not there now, or never: then it has no `retry_after_s`.
        """
        if self._tokens is not None and estimate > self._tokens.per_minute:
            raise RateLimitError(
                f"Request too large: limit {self._tokens.per_minute} tokens per minute, requested {estimate}. "
                "The input or output tokens must be reduced",
                retry_after_s=None,
                type="tokens",
            )
        await self._take(self._tokens, estimate, "tokens")

    def correct_tokens(self, estimate: int, used: int) -> None:
        """It needed `used` in place of what was taken for it."""
        if self._tokens is not None:
            self._tokens.correct(estimate - used, self._clock())
            if self._shared is not None:
                self._shared.correct(self._shared_name("tokens"), self._tokens, estimate - used)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-…` as it stands now."""
        now = self._clock()
        found: list[tuple[bytes, bytes]] = []
        for name, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                found += [
                    (b"x-ratelimit-limit-" + name, b"%d" % bucket.per_minute),
                    (b"x-ratelimit-remaining-" + name, b"%d" % max(0, bucket.level(now))),
                    (b"x-ratelimit-reset-" + name, duration(bucket.full_in_s(now)).encode()),
                ]
        return found

    async def _take(self, bucket: TokenBucket | None, amount: int, kind: str) -> None:
        if bucket is None:
            return
        now = self._clock()
        if self._shared is None:
            wait_s = bucket.take(amount, now)
        else:
            wait_s = await self._shared.take(self._shared_name(kind), bucket, amount, now)
        if wait_s:
            left = max(0, int(bucket.level(now)))
            raise RateLimitError(
                f"Rate limit reached: limit {bucket.per_minute} {kind} per minute, left {left}, requested {amount}. "
                f"Please try again in {duration(wait_s)}",
                retry_after_s=wait_s,
                type=kind,
            )

    def _shared_name(self, kind: str) -> str:
        return f"{kind}/{self._name}"
