"""The work of one engine, step by step: schedule, forward, sample, events. Knows nothing of threads or of who waits for it.

What goes wrong for one request fails that request; what goes wrong in a forward pass fails the requests of that step. Any
other exception leaves here, and the engine ends (`EngineThread`): nothing can be trusted then.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from collections.abc import Sequence as AbstractSequence
from dataclasses import replace

import torch

from mm_gateway.core import Embedding, GenerationEvent, Usage
from mm_gateway.errors import GatewayError, SlowReaderError
from mm_gateway.runtime.engine.failures import failed_forward, failed_request, no_numbers, no_tokens_left
from mm_gateway.runtime.engine.forward.hidden_states import unit_vector
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner, current_device
from mm_gateway.runtime.engine.forward_pass import ForwardPass
from mm_gateway.runtime.engine.guesses.draft_model import DraftModel
from mm_gateway.runtime.engine.guesses.guessing import Guessing
from mm_gateway.runtime.engine.guesses.output_rules import OutputRules
from mm_gateway.runtime.engine.queue_reports import QueueReports
from mm_gateway.runtime.engine.requests.embedding_job import EmbeddingJob
from mm_gateway.runtime.engine.requests.generation import Generation, Outbox
from mm_gateway.runtime.engine.requests.sequence_text import SequenceText
from mm_gateway.runtime.engine.requests.text_job import TextJob
from mm_gateway.runtime.engine.stats import EngineStats
from mm_gateway.runtime.sampling.sampler import Sampled, Sampler
from mm_gateway.runtime.sampling.structured_output import TokenMasks
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence, Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence

ARRIVAL_TIMEOUT_S = 0.02
"""For a prefix to arrive before commands are looked at again."""


class StepLoop:
    """Owns the jobs of one engine and everything that is kept for their sequences. All calls but `stats` come from one thread.

    Args:
        name: the model's, for reports of progress. guesses: look up what may come next; texts stay the same, token by token, since what a
            compiled model computes does not depend on what is computed beside it. draft: guesses too, for the scheduler.
    """

    def __init__(
        self,
        name: str,
        runner: ModelRunner,
        scheduler: Scheduler,
        sampler: Sampler,
        masks: TokenMasks,
        *,
        guesses: bool = False,
        draft: DraftModel | None = None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._rules = OutputRules()
        self._forward = ForwardPass(runner, sampler, masks, self._rules)
        self._guessing = Guessing(lookup=guesses and runner.is_invariant, draft=draft)
        self._reports = QueueReports(name, scheduler)
        self._outbox = Outbox()
        self._jobs: dict[Generation, TextJob | EmbeddingJob] = {}
        self._job_of: dict[int, TextJob | EmbeddingJob] = {}  # by sequence id
        self._released = 0  # sequences since the last step
        self._steps = self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._scheduler.running or self._scheduler.waiting)

    def stats(self) -> EngineStats:
        """Any thread."""
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            preemptions=self._scheduler.preemptions,
            lookup=self._guessing.looked_up,
            draft_model=self._guessing.drafted,
            restored=replace(self._runner.cache.restored),
            kv_tokens=self._scheduler.kv_tokens,
            kv_used_tokens=self._scheduler.kv_used_tokens,
        )

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """What the thread has to be in to call `step`."""
        with torch.inference_mode(), current_device(self._runner.device):
            yield

    def add(self, job: TextJob | EmbeddingJob) -> None:
        """Take a job in; its sequences wait."""
        self._jobs[job.generation] = job  # first of all, so that it has an answer whatever happens next
        self._prompt_tokens += job.prompt_tokens
        try:
            self._queue(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this request
            self._fail(job, failed_request(error))

    def cancel(self, generation: Generation) -> None:
        """Drop a job and free what it holds; unknown ones are ignored."""
        job = self._jobs.pop(generation, None)
        if job is not None:
            self._release_all(job)

    def step(self) -> int:
        """One forward pass, where there is anything to do, and its events; returns how many sequences were released since the last."""
        step = self._scheduler.schedule()
        if step:
            self._compute(step)
        elif self.busy:
            self._runner.cache.wait(ARRIVAL_TIMEOUT_S)  # all there is waits for a prefix that is on its way into the cache
        for job, progress in self._reports.due(self._jobs.values()):
            self._outbox.add(job.generation, [progress])
        self._outbox.flush()
        released, self._released = self._released, 0
        return released

    def close(self, *, save_s: float) -> None:
        """The last call. For at most `save_s` seconds, keep what the KV cache holds for later, where that is configured; 0: it is not to be
        trusted."""
        with self.on_device():
            self._runner.cache.close(save_s)
            self._guessing.close()

    def abandon(self, reason: GatewayError, unqueued: AbstractSequence[TextJob | EmbeddingJob] = ()) -> None:
        """Fail all jobs, and those that were not added yet. Frees nothing: what holds their state is not to be trusted any more."""
        for generation in [*self._jobs, *(job.generation for job in unqueued)]:
            self._outbox.add(generation, [reason])
        self._jobs.clear()
        self._outbox.flush()
        self._forward.close()

    def _queue(self, job: TextJob | EmbeddingJob) -> None:
        if isinstance(job, EmbeddingJob):
            self._queue_inputs(job)
            return
        for text in job.texts.values():
            seq = text.seq
            self._job_of[seq.id] = job
            if text.thinking is not None:
                text.thinking.begin()
                text.follow()
                self._rules.begin(seq, text.thinking)
            elif job.grammar is not None:
                self._rules.begin(seq, job.grammar.new_state())
            self._guessing.begin(seq, self._rules.of(seq), job.prediction)
            self._scheduler.add(seq)

    def _queue_inputs(self, job: EmbeddingJob) -> None:
        for seq in job.feed():
            self._job_of[seq.id] = job
            self._scheduler.add(seq)

    def _fail(self, job: TextJob | EmbeddingJob, error: GatewayError) -> None:
        """The job ends with an error, and what it computed is forgotten: it may be no numbers that others should meet."""
        if self._jobs.pop(job.generation, None) is not None:
            self._outbox.add(job.generation, [error])
            self._release_all(job, discard=True)

    def _release_all(self, job: TextJob | EmbeddingJob, *, discard: bool = False) -> None:
        sequences = job.sequences
        self._released += job.places - len(sequences)  # places of inputs that the scheduler does not hold yet
        for seq in sequences:
            self._release(seq, discard=discard)

    def _release(self, seq: Sequence, *, discard: bool = False) -> None:
        self._released += 1
        # Nobody continues what was embedded, so its keys and values are not to push out those of conversations.
        self._scheduler.remove(seq, discard=discard or seq.pooling is not None)
        self._guessing.forget(seq, discard=discard)
        self._forward.forget(seq)
        self._job_of.pop(seq.id, None)
        self._rules.forget(seq)

    def _compute(self, step: list[ScheduledSequence]) -> None:
        self._steps += 1
        self._note_admitted(step)
        started = time.monotonic()
        try:
            computed = self._forward.run(step)
        except Exception as error:  # noqa: BLE001 - whatever fails in a forward pass concerns this step's requests alone
            failure = failed_forward(error, len(step))
            for scheduled in step:
                if (job := self._job_of.get(scheduled.seq.id)) is not None:
                    self._fail(job, failure)
            return
        self._guessing.note_step(step, time.monotonic() - started)
        for scheduled in step:
            if not scheduled.seq.draft_len:
                self._scheduler.computed(scheduled.seq, scheduled.count)
        for seq_id, states in computed.pooled.items():
            job = self._job_of.get(seq_id)  # None: another input of its request failed in this very step
            if isinstance(job, EmbeddingJob):
                self._embed(job, seq_id, states)
        for seq, draws in computed.by_sequence():
            self._advance_by(seq, draws)

    def _note_admitted(self, step: list[ScheduledSequence]) -> None:
        for scheduled in step:
            if scheduled.seq.computed == scheduled.seq.cached:  # nothing of it was computed yet
                self._job_of[scheduled.seq.id].generation.note_admitted()

    def _advance_by(self, seq: Sequence, draws: list[Sampled]) -> None:
        """The next token of a text, and those after it for as long as they are what was guessed and so were computed for."""
        draft = seq.take_draft()
        accepted = 0
        job = self._job_of.get(seq.id)
        if isinstance(job, TextJob):
            job.rejected_tokens += len(draft)  # until they are found to be right
        for draw in draws:
            if not isinstance(job, TextJob) or seq.id not in self._job_of:
                break  # it ended
            if accepted and not self._rules.is_as_foreseen(seq, accepted):
                break  # the next step draws it from what may come there after all
            if draft:
                self._scheduler.computed(seq, 1)
            right = accepted < len(draft) and draw.token == draft[accepted]
            job.accepted_tokens += right
            job.rejected_tokens -= right
            self._advance(job, job.texts[seq.id], draw)
            if not right:
                break
            accepted += 1
        if draft:
            self._guessing.learn(seq, len(draft), accepted)

    def _embed(self, job: EmbeddingJob, seq_id: int, states: torch.Tensor) -> None:
        try:
            vector = unit_vector(states, job.dimensions)
            if vector is None:
                raise no_numbers()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this request
            self._fail(job, failed_request(error))
            return
        job.generation.note_output()
        index, seq = job.live.pop(seq_id)
        self._release(seq)
        if job.backlog:
            self._released -= 1  # the place goes to the next input
            self._queue_inputs(job)
        self._outbox.add(job.generation, [Embedding(index, vector)])
        if not job.live:
            del self._jobs[job.generation]
            self._outbox.add(job.generation, [Usage(job.prompt_tokens, 0)])

    def _advance(self, job: TextJob, text: SequenceText, draw: Sampled) -> None:
        """One more token of a text."""
        seq = text.seq
        try:
            events, ended = self._events_of(job, text, draw)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this request
            self._fail(job, failed_request(error))
            return
        self._outbox.add(job.generation, list(events))
        if not ended:
            return
        if text.index % job.choices_per_prompt == 0:  # every prompt counts once, by its first choice
            job.cached_tokens += seq.cached or 0
            self._cached_tokens += seq.cached or 0
        job.reasoning_tokens += seq.thought_len
        del job.texts[seq.id]
        self._release(seq)
        if not job.texts:
            del self._jobs[job.generation]
            self._outbox.add(job.generation, [job.usage])

    def _events_of(self, job: TextJob, text: SequenceText, draw: Sampled) -> tuple[list[GenerationEvent], bool]:
        """What a draw says, and whether the text ends with it."""
        seq = text.seq
        rules = self._rules.of(seq)
        if draw.token is None:
            raise no_tokens_left(seq, rules.param if rules is not None else "") if draw.all_barred else no_numbers()
        if job.generation.is_read_too_slowly:
            raise SlowReaderError("The client reads this reply more slowly than the model writes it, beyond what is kept for it")
        if rules is not None:
            rules.advance(draw.token)
        events: list[GenerationEvent] = []
        if not text.begun:
            seq.score_prompt = False  # once is enough, however often the prompt is computed again
            events += text.begin(self._forward.take_prompt_scores(seq), job.echo.get(seq.id))
        if seq.max_tokens == 0:
            return [*events, *text.finish_unsampled()], True
        job.generation.note_output()
        seq.tokens.append(draw.token)
        job.completion_tokens += 1
        self._completion_tokens += 1
        more, ended = text.add(draw.token, draw.scores)
        return [*events, *more], ended
