"""Requests that run and those that have ended just now, for the operator."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.protocol.admin import RequestEntry, RequestList, RequestTotals

MAX_RECENT = 50


class RecentRequests:
    """An observer: what was asked of models, the newest MAX_RECENT of it one by one, all of it in sums."""

    def __init__(self) -> None:
        self._recent: deque[RequestEntry] = deque(maxlen=MAX_RECENT)
        self._totals = RequestTotals(0, 0, 0, 0)

    def finished(self, record: RequestRecord) -> None:
        if record.method != "POST" or record.endpoint.startswith("/admin"):
            return
        totals = self._totals
        totals.requests += 1
        totals.failed += record.error is not None
        totals.prompt_tokens += record.prompt_tokens
        totals.output_tokens += record.output_tokens
        self._recent.appendleft(entry(record))

    def told(self, running: Iterable[RequestRecord]) -> RequestList:
        """All of it. running: records of the requests that are being answered."""
        records = sorted(running, key=lambda record: record.arrived)
        totals = RequestTotals(
            self._totals.requests,
            self._totals.failed,
            self._totals.prompt_tokens + sum(record.prompt_tokens for record in records),
            self._totals.output_tokens + sum(record.output_tokens for record in records),
        )
        return RequestList(time.time(), [entry(record) for record in records], list(self._recent), totals)


def entry(record: RequestRecord) -> RequestEntry:
    """A request as the operator sees it."""
    if record.ended is not None:
        state = "finished"
    elif record.begun is None:
        state = "arriving"
    else:
        state = "waiting" if record.first_output is None else "running"
    return RequestEntry(
        id=record.request_id,
        endpoint=record.endpoint,
        model=record.model,
        key=record.key,
        stream=record.stream,
        state=state,
        status=record.status,
        error=record.error_code,
        client_gone=record.client_gone,
        arrived_at=record.arrived_at,
        duration_s=record.duration_s,
        time_to_first_token_s=record.time_to_first_token_s,
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
    )
