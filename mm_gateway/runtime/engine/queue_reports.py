"""Tells those without a token yet where they stand: which place in the queue, how much of the prompt is read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from mm_gateway.core import Progress
from mm_gateway.runtime.engine.requests.embedding_job import EmbeddingJob
from mm_gateway.runtime.engine.requests.text_job import TextJob
from mm_gateway.runtime.scheduling.scheduler import Scheduler

INTERVAL_S = 0.5


class QueueReports:
    """Of one engine, by its thread. name: the model's, for people."""

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self._name = name
        self._scheduler = scheduler
        self._next_s = 0.0

    def due(self, jobs: Iterable[TextJob | EmbeddingJob]) -> Iterator[tuple[TextJob, Progress]]:
        """What is news to some of the jobs; nothing until `INTERVAL_S` after the last time."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + INTERVAL_S
        places = self._scheduler.places()
        for job in jobs:
            if isinstance(job, EmbeddingJob) or job.completion_tokens or not job.texts:
                continue
            seq = next(iter(job.texts.values())).seq
            if self._scheduler.is_running(seq):
                progress = Progress("prefill", f"{self._name}: reading the prompt", seq.computed / seq.prompt_len)
            else:
                detail = f"{self._name}: place {places.get(seq.group, 1)} of {len(places)} in the queue"
                progress = Progress("queued", detail)
            if progress != job.reported:
                job.reported = progress
                yield job, progress
