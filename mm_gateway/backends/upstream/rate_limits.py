"""What a server's headers say of its limit of requests, in OpenAI's words or Anthropic's.

Both refill continuously and say when the limit will be whole again, so that how much comes back each second follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from mm_gateway.core import Allowance

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s?)?(?:(\d+(?:\.\d+)?)ms)?")
_NAMES = (
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
)


def allowance_in(headers: Mapping[str, str], now: float) -> Allowance | None:
    """The limit that a reply's headers tell; None where they do not, or not in full. now: by the event loop's clock."""
    for names in _NAMES:
        limit, remaining, reset = (headers.get(name, "") for name in names)
        if not (limit.isdecimal() and remaining.isdecimal()):
            continue
        whole_in_s = seconds_of(reset)
        missing = int(limit) - int(remaining)
        if whole_in_s is not None and missing > 0:
            return Allowance(int(remaining), missing / max(whole_in_s, 0.001), now)
    return None


def seconds_of(reset: str) -> float | None:
    """A duration such as `6m0s`, `1.5s`, `20ms` or `7`, or seconds until a time such as `2026-01-01T00:00:00Z`; None: it is neither."""
    found = _DURATION.fullmatch(reset.strip())
    if found is not None and any(found.groups()):
        hours, minutes, seconds, ms = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds + ms / 1000
    try:
        then = datetime.fromisoformat(reset)
    except ValueError:
        return None
    return max((then - datetime.now(UTC)).total_seconds(), 0.0) if then.tzinfo is not None else None
