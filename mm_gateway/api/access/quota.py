"""Whether a key has anything left of its budgets by day and month, and what is said where it has not."""

from __future__ import annotations

from datetime import datetime, timedelta

from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.errors import QuotaExceededError
from mm_gateway.storage.usage_store import Used

RETRY_S = 1.0
"""After which to come back where only running requests stand against it."""


def hold_all(key: ApiKey, now: datetime, today: Used, this_month: Used, reserved: Used) -> None:
    """See that a request of a key may begin.

    Args:
        today, this_month: what the key has used. reserved: what its running requests hold back; of all of these tokens and cost count.

    Raises:
        QuotaExceededError: a budget is used up, or will be by the requests that run.
    """
    _hold("day", key.tokens_per_day, today.tokens, reserved.tokens, "tokens", now)
    _hold("day", key.cost_per_day, today.cost, reserved.cost, "in money", now)
    _hold("month", key.tokens_per_month, this_month.tokens, reserved.tokens, "tokens", now)
    _hold("month", key.cost_per_month, this_month.cost, reserved.cost, "in money", now)


def _hold(period: str, budget: float | None, used: float, running: float, unit: str, now: datetime) -> None:
    if budget is None or used + running < budget:
        return
    text = f"You exceeded your current quota: {budget:.12g} {unit} per {period}, {used:.12g} used"
    if used < budget:
        text += f", {running:.12g} reserved by requests that run. Please try again when they have ended"
        raise QuotaExceededError(text, retry_after_s=RETRY_S)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    anew = day + timedelta(days=1) if period == "day" else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    raise QuotaExceededError(f"{text}. It begins anew at {anew:%Y-%m-%dT%H:%M:%SZ}")
