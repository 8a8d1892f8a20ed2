"""The step loop of one model: schedule, forward, sample, events. Owns the engine's thread and everything that only it may touch."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mm_gateway.core import Embedding, GenerationEvent, Progress, Usage
from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, EngineError, GatewayError, OutOfMemoryError, RateLimitError, ShuttingDownError
from mm_gateway.runtime.engine.choice import Choice
from mm_gateway.runtime.engine.embedding_job import EmbeddingJob
from mm_gateway.runtime.engine.generation import Generation, Outbox
from mm_gateway.runtime.engine.hidden_states import Pooler, unit_vector
from mm_gateway.runtime.engine.model_runner import ModelRunner, StepLogits, current_device
from mm_gateway.runtime.memory_errors import is_out_of_memory
from mm_gateway.runtime.sampling.sampler import Sampler, TokenScores, score_tokens
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar, GrammarState, TokenMasks
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence, Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.throughput import Throughput

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.5
"""Between two reports of progress to those that wait for their first token."""


@dataclass(eq=False, slots=True)
class Job:
    """One request in the engine.

    Attributes:
        choices: those that have not ended, by sequence id.
        prompt_tokens: over all prompts, each counted once.
        echo: text of each prompt whose log-probabilities were asked for, by sequence id.
        grammar: what every choice has to follow.
    """

    generation: Generation
    choices: dict[int, Choice]
    prompt_tokens: int
    choices_per_prompt: int
    echo: dict[int, str]
    grammar: CompiledGrammar | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0
    told: Progress | None = None

    @property
    def places(self) -> int:
        """Places of the queue that it takes."""
        return len(self.choices)

    @property
    def sequences(self) -> list[Sequence]:
        """Those that the scheduler holds."""
        return [choice.seq for choice in self.choices.values()]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A glance at the engine. All counts are since its start, except running and waiting."""

    running: int
    waiting: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int


class EngineThread:
    """Runs jobs until closed. Methods may be called from any thread; the work happens in the engine's own.

    Commands go in through a queue that is drained before each step; events go out after each step, in one hand-over.

    Args:
        max_sequences: running and waiting together; beyond it jobs are refused.
    """

    def __init__(
        self, name: str, runner: ModelRunner, scheduler: Scheduler, sampler: Sampler, masks: TokenMasks, *, max_sequences: int
    ) -> None:
        self._name = name
        self._max_sequences = max_sequences
        self._sequences = 0  # submitted and not yet released; guarded by _gate
        self._released = 0  # of them, in this step
        self._releases = Throughput()
        self._next_report = 0.0
        self._runner = runner
        self._masks = masks
        self._grammars: dict[int, GrammarState] = {}  # by sequence id
        self._scheduler = scheduler
        self._sampler = sampler
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._jobs: dict[Generation, Job | EmbeddingJob] = {}
        self._job_of: dict[int, Job | EmbeddingJob] = {}  # by sequence id
        self._pooler = Pooler()
        self._prompt_scores: dict[int, list[TokenScores | None]] = {}
        self._outbox = Outbox()
        self._steps = self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        self._closing = False
        self._gate = threading.Lock()  # so that no job slips in behind the closing command
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job | EmbeddingJob) -> None:
        """Queue a job.

        Raises:
            ShuttingDownError: the engine is closing. RateLimitError: the queue is full.
        """
        count = job.places
        with self._gate:
            if self._closing:
                raise ShuttingDownError("The model is being unloaded")
            excess = self._sequences + count - self._max_sequences
            if excess > 0:
                # More than the whole queue holds will never find room in it.
                retry_after_s = self._releases.seconds_for(excess) if count <= self._max_sequences else None
                raise RateLimitError(f"The model's queue is full: {self._sequences} sequences run or wait", retry_after_s=retry_after_s)
            self._sequences += count
            self._commands.put(lambda: self._add(job))

    def cancel(self, generation: Generation) -> None:
        """Drop a job's sequences before the next step; unknown ones are ignored."""
        self._commands.put(lambda: self._cancel(generation))

    def close(self) -> None:
        """Fail what is left with ShuttingDownError and end the thread; returns when it has ended."""
        with self._gate:
            if not self._closing:
                self._closing = True
                self._commands.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def stats(self) -> EngineStats:
        scheduler = self._scheduler
        return EngineStats(
            running=scheduler.running,
            waiting=scheduler.waiting,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            preemptions=scheduler.preemptions,
        )

    def _run(self) -> None:
        with torch.inference_mode(), current_device(self._runner.device):
            while self._drain():
                started = time.monotonic()
                step = self._scheduler.schedule()
                if step:
                    self._step(step)
                if started >= self._next_report:
                    self._next_report = started + REPORT_INTERVAL_S
                    self._report()
                self._outbox.flush()
                self._measure(time.monotonic() - started)
        self._masks.close()
        for generation in list(self._jobs):
            self._fail(generation, ShuttingDownError("The model was unloaded"))
        self._outbox.flush()

    def _measure(self, step_s: float) -> None:
        """How fast sequences leave, which is how fast those that wait can come in."""
        released, self._released = self._released, 0
        self._releases.observe(released, step_s)
        if released:
            with self._gate:
                self._sequences -= released

    def _report(self) -> None:
        """Tell those without a token yet where they stand."""
        places = self._scheduler.places()
        for job in self._jobs.values():
            if isinstance(job, EmbeddingJob) or job.completion_tokens or not job.choices:
                continue
            seq = next(iter(job.choices.values())).seq
            if self._scheduler.is_running(seq):
                progress = Progress("prefill", f"{self._name}: reading the prompt", seq.computed / seq.prompt_len)
            else:
                detail = f"{self._name}: place {places.get(seq.group, 1)} of {len(places)} in the queue"
                progress = Progress("queued", detail)
            if progress != job.told:
                job.told = progress
                self._outbox.add(job.generation, [progress])

    def _drain(self) -> bool:
        """Carry out commands; blocks while there is no work. False: close."""
        idle = not self._scheduler.running and not self._scheduler.waiting
        while True:
            try:
                command = self._commands.get(block=idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            idle = False

    def _add(self, job: Job | EmbeddingJob) -> None:
        self._jobs[job.generation] = job
        self._prompt_tokens += job.prompt_tokens
        if isinstance(job, EmbeddingJob):
            self._feed(job)
            return
        for seq_id, choice in job.choices.items():
            self._job_of[seq_id] = job
            if job.grammar is not None:
                self._grammars[seq_id] = job.grammar.new_state()
            self._scheduler.add(choice.seq)

    def _feed(self, job: EmbeddingJob) -> None:
        for seq in job.feed():
            self._job_of[seq.id] = job
            self._scheduler.add(seq)

    def _cancel(self, generation: Generation) -> None:
        job = self._jobs.pop(generation, None)
        if job is not None:
            for seq in job.sequences:
                self._release(seq)

    def _fail(self, generation: Generation, error: GatewayError, *, discard: bool = False) -> None:
        job = self._jobs.pop(generation, None)
        if job is None:
            return
        for seq in job.sequences:
            self._release(seq, discard=discard)
        self._outbox.add(generation, [error])

    def _release(self, seq: Sequence, *, discard: bool = False) -> None:
        self._released += 1
        # Nobody continues what was embedded, so its keys and values are not to push out those of conversations.
        self._scheduler.remove(seq, discard=discard or seq.pooling is not None)
        self._sampler.forget(seq)
        self._pooler.forget(seq)
        self._job_of.pop(seq.id, None)
        self._prompt_scores.pop(seq.id, None)
        self._grammars.pop(seq.id, None)

    def _step(self, step: list[ScheduledSequence]) -> None:
        self._steps += 1
        constrained = [scheduled.seq.id for scheduled in step if scheduled.sample and scheduled.seq.id in self._grammars]
        masks = self._masks.start([self._grammars[id] for id in constrained]) if constrained else None
        try:
            result = self._runner.execute(step)
            self._score_prompts(result)
            pooled = self._pooler.add(result.hidden)
            masked = None
            if masks is not None:
                row_of = {seq.id: row for row, seq in enumerate(result.sampled)}
                masked = [row_of[id] for id in constrained], masks.result()
            sampled = self._sampler.sample(result.logits, result.sampled, masked) if result.sampled else []
        except Exception as error:  # whatever went wrong in a forward pass is the fault of this step's requests alone
            self._fail_step(step, error)
            return
        self._scheduler.computed(step)
        for seq_id, vector in pooled.items():
            self._embed(seq_id, vector)
        for seq, draw in zip(result.sampled, sampled, strict=True):
            job = self._job_of.get(seq.id)
            if not isinstance(job, Job):
                continue  # another choice of its request failed in this very step
            if draw.token is None:
                logger.error("NaN or infinite logits; the request fails")
                self._fail(job.generation, EngineError("The model computed NaN or infinite values for this request"), discard=True)
                continue
            state = self._grammars.get(seq.id)
            if state is not None and not state.advance(draw.token):
                logger.error("a token left its grammar: %s", state.matcher.get_error())
                self._fail(job.generation, EngineError("The output left its grammar; the request fails"))
                continue
            self._advance(job, seq, draw.token, draw.scores)

    def _embed(self, seq_id: int, pooled: torch.Tensor) -> None:
        job = self._job_of.get(seq_id)
        if not isinstance(job, EmbeddingJob):
            return  # another input of its request failed in this very step
        vector = unit_vector(pooled, job.dimensions)
        if vector is None:
            logger.error("NaN or infinite hidden states; the request fails")
            self._fail(job.generation, EngineError("The model computed NaN or infinite values for this request"), discard=True)
            return
        index, seq = job.live.pop(seq_id)
        self._release(seq)
        if job.backlog:
            self._released -= 1  # the place goes to the next input
            self._feed(job)
        events: list[GenerationEvent] = [Embedding(index, vector)]
        if not job.live:
            del self._jobs[job.generation]
            events.append(Usage(job.prompt_tokens, 0))
        self._outbox.add(job.generation, list(events))

    def _advance(self, job: Job, seq: Sequence, token: int, scores: TokenScores | None) -> None:
        choice = job.choices[seq.id]
        events: list[GenerationEvent] = []
        if seq.id in self._prompt_scores:
            events.append(choice.score_prompt(self._prompt_scores.pop(seq.id), job.echo[seq.id]))
        if seq.max_tokens == 0:
            more, ended = choice.finish_unsampled(), True
        else:
            seq.tokens.append(token)
            job.completion_tokens += 1
            self._completion_tokens += 1
            more, ended = choice.add(token, scores)
        events += more
        if ended:
            if choice.index % job.choices_per_prompt == 0:  # every prompt counts once, by its first choice
                job.cached_tokens += seq.cached or 0
                self._cached_tokens += seq.cached or 0
            del job.choices[seq.id]
            self._release(seq)
            if not job.choices:
                del self._jobs[job.generation]
                events.append(Usage(job.prompt_tokens, job.completion_tokens, cached_tokens=job.cached_tokens))
        if events:
            self._outbox.add(job.generation, list(events))

    def _score_prompts(self, result: StepLogits) -> None:
        for seq, logits in result.prompts:
            scores = self._prompt_scores.setdefault(seq.id, [None])
            known = seq.tokens[seq.computed + 1 : min(seq.computed + len(logits) + 1, seq.prompt_len)]
            if known:
                scores += score_tokens(logits[: len(known)], known, seq.config.logprobs or 0)

    def _fail_step(self, step: list[ScheduledSequence], error: Exception) -> None:
        typed: GatewayError
        if is_out_of_memory(error):
            logger.error("out of memory in a forward pass of %d sequences", len(step))
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # what the failed step left in pieces
            typed = OutOfMemoryError(f"Device memory ran out while generating. {OUT_OF_MEMORY_ADVICE}")
        else:
            logger.exception("a forward pass of %d sequences failed", len(step))
            typed = error if isinstance(error, GatewayError) else EngineError("The model failed while computing this request")
        for scheduled in step:
            job = self._job_of.get(scheduled.seq.id)
            if job is not None:
                self._fail(job.generation, typed, discard=True)
