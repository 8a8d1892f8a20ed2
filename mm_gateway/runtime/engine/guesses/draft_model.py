"""A small model that guesses what a large one says next; its guesses are checked as those of `PromptLookup` are.

It runs in the engine's thread between the steps of the large one, over a KV cache of its own, for all sequences at once: each pass guesses
one more token for each. A guess is drawn as the sampler would draw from the large model's logits, with the sequence's penalties, grammar
and noise: where both models have similar logits, the same random numbers choose the same token.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.engine.requests.thinking import Thinking
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.sampling.structured_output import Allowed, GrammarState, TokenMasks
from mm_gateway.runtime.scheduling.allocator import Refusal
from mm_gateway.runtime.scheduling.draft_lengths import Acceptance, Costs, DraftPlan
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence

logger = logging.getLogger(__name__)

_WORTH_READING = 16
"""Tokens of a text so far that are read for each that may still come: a long prompt is not read for a short reply."""


@dataclass(eq=False, slots=True)
class _Follower:
    """What is kept for one sequence.

    Attributes:
        seq: the large model's. own: the same tokens, as the draft model's cache has them; None: it has none. rules: of the output.
        right: tokens from the beginning that its cache may hold: those behind were guesses that were wrong.
    """

    seq: Sequence
    rules: GrammarState | Thinking | None
    acceptance: Acceptance
    own: Sequence | None = None
    right: float = math.inf


class DraftModel:
    """Called by the engine's thread, under inference mode.

    Args:
        runner: of the draft model, with its own cache. vocab_size: of the large model's logits. readable: ids that the draft model knows
            are below it. sampler, masks: of the engine. stop_token_ids: nothing is guessed behind them.
        most_rows: of one pass; what the draft model has not read of a text, it reads in passes of so many. fixed: as for `DraftPlan`.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        vocab_size: int,
        readable: int,
        sampler: Sampler,
        masks: TokenMasks,
        stop_token_ids: frozenset[int],
        most_rows: int,
        fixed: int | None = None,
    ) -> None:
        self._runner = runner
        self._kv = runner.cache.allocator
        self._vocab_size = vocab_size
        self._readable = readable
        self._sampler = sampler
        self._masks = masks
        self._stops = stop_token_ids
        self._most_rows = most_rows
        self._fixed = fixed
        self._followers: dict[int, _Follower] = {}
        self._failed = False
        self.costs = Costs()

    @property
    def capacity_bytes(self) -> int:
        """Memory that its KV cache may come to take."""
        return self._runner.cache.capacity_bytes

    def begin(self, seq: Sequence, rules: GrammarState | Thinking | None) -> None:
        """Guess for a sequence from now on."""
        self._followers[seq.id] = _Follower(seq, rules, Acceptance())

    def draft(self, room: AbstractSequence[tuple[Sequence, int]], decodes: int, rows: int) -> None:
        """Add guesses to sequences, where they pay. What fails here ends the guessing, and no request.

        Args:
            room: sequences, with how many guesses each may have. decodes: sequences of the step. rows: guesses of all together.
        """
        if self._failed:
            return
        try:
            self._draft(room, decodes, rows)
        except Exception:
            logger.exception("the draft model failed; nothing is guessed by it any more")
            self._failed = True
            for seq, _ in room:
                seq.take_draft()

    def learn(self, seq: Sequence, guessed: int, accepted: int) -> None:
        """What became of guesses: how many of them were right. Sequences that have ended are ignored."""
        follower = self._followers.get(seq.id)
        if follower is not None:
            follower.acceptance.learn(guessed, accepted)
            follower.right += accepted

    def forget(self, seq: Sequence, *, discard: bool = False) -> None:
        """The sequence is finished. discard: as for `Scheduler.remove`."""
        follower = self._followers.pop(seq.id, None)
        if follower is not None:
            self._take_back(follower)
            if follower.own is not None:
                (self._kv.discard if discard else self._kv.release)(follower.own)

    def close(self) -> None:
        self._runner.cache.close(0)

    def _draft(self, room: AbstractSequence[tuple[Sequence, int]], decodes: int, rows: int) -> None:
        most = {seq.id: count for seq, count in room if count > 0}
        able = [follower for id in most if (follower := self._followers.get(id)) is not None and _is_foreseeable(follower)]
        plan = DraftPlan(self.costs, decodes, self._fixed)
        active = [able[place] for place in plan.next_pass([follower.acceptance.rate for follower in able], 0)][:rows]
        for follower in able:
            if follower not in active:
                follower.acceptance.forget()
        active = self._catch_up([follower for follower in active if self._has_room(follower)])
        states = {follower.seq.id: now.state.ahead([]) for follower in active if (now := _allowed(follower)) and now.state is not None}
        guessed = 0
        while active:
            masks = self._start_masks(active, states)
            started = time.monotonic()
            step = [ScheduledSequence(_own(follower), _own(follower).remaining, True) for follower in active]
            logits = self._logits(step)
            tokens = self._sampler.propose(logits, [follower.seq for follower in active], masks)
            if sum(scheduled.count for scheduled in step) <= 2 * len(step):
                self.costs.add_pass(time.monotonic() - started)
            guessed += 1
            rows -= len(active)
            more: list[_Follower] = []
            for follower, token in zip(active, tokens, strict=True):
                own, seq = _own(follower), follower.seq
                own.computed = len(seq.tokens)
                if token is None or token >= self._readable:
                    continue
                seq.tokens.append(token)
                seq.draft_len, seq.drafted = seq.draft_len + 1, True
                if token in self._stops or seq.draft_len >= most[seq.id] or not self._kv.extend(own):
                    continue
                more.append(follower)
            chosen = plan.next_pass([follower.acceptance.rate for follower in more], guessed)
            active = [more[place] for place in chosen][: max(rows, 0)]

    def _has_room(self, follower: _Follower) -> bool:
        """Whether the draft model's cache holds the sequence, which is given room there where it has none."""
        self._take_back(follower)
        seq, own = follower.seq, follower.own
        follower.right = len(seq.tokens)
        unread = seq.tokens[own.computed if own is not None else 0 :]
        if len(seq.tokens) >= self._kv.max_tokens or max(unread) >= self._readable:
            self.forget(seq)  # it will not become shorter, nor others of its tokens known
            return False
        if own is not None:
            return self._kv.extend(own)
        own = Sequence(seq.id, seq.group, [], seq.config, max_tokens=1, seed=0)
        own.tokens, own.prompt_len, own.score_prompt = seq.tokens, seq.prompt_len, False
        found = self._kv.allocate(own)
        if isinstance(found, Refusal):
            return False
        own.computed = found
        self._kv.commit(own)
        follower.own = own
        return True

    def _take_back(self, follower: _Follower) -> None:
        """What was computed for guesses that were wrong goes."""
        own = follower.own
        if own is not None:
            own.computed = int(min(own.computed, follower.right, follower.seq.known - 1))
            self._kv.commit(own)

    def _catch_up(self, followers: list[_Follower]) -> list[_Follower]:
        """Read what the draft model has not read of these texts yet, in one pass of bounded size; those that have little left."""
        ready: list[_Follower] = []
        behind: list[ScheduledSequence] = []
        rows = self._most_rows
        for follower in followers:
            own, seq = _own(follower), follower.seq
            lag = own.remaining - 1
            if lag <= 4:
                ready.append(follower)
            elif rows and lag <= _WORTH_READING * (seq.max_tokens - seq.output_len):
                count = min(lag, rows)
                behind.append(ScheduledSequence(own, count, False))
                rows -= count
                if count == lag:
                    ready.append(follower)
        if behind:
            self._runner.execute(behind)
            for scheduled in behind:
                scheduled.seq.computed += scheduled.count
                self._kv.commit(scheduled.seq)
        return ready

    def _logits(self, step: list[ScheduledSequence]) -> torch.Tensor:
        """[len(step), vocabulary of the large model], in that order."""
        result = self._runner.execute(step)
        row_of = {seq.id: row for row, seq in enumerate(result.sampled)}
        logits = result.logits[[row_of[scheduled.seq.id] for scheduled in step]]
        missing = self._vocab_size - logits.shape[-1]
        return pad(logits, (0, missing), value=-torch.inf) if missing > 0 else logits[:, : self._vocab_size].contiguous()

    def _start_masks(self, active: list[_Follower], states: dict[int, list[GrammarState]]) -> tuple[list[int], torch.Tensor] | None:
        rows: list[int] = []
        outputs: list[Allowed] = []
        for row, follower in enumerate(active):
            now = _allowed(follower)
            if now is not None and now.state is not None:
                seq = follower.seq
                known = states[seq.id]
                state = known[-1] if known else now.state
                if seq.draft_len > len(known):
                    known += state.ahead(seq.tokens[seq.known + len(known) :])
                    state = known[-1]
                rows.append(row)
                outputs.append(state.allowed())
        return (rows, self._masks.start(outputs).result()) if rows else None


def _own(follower: _Follower) -> Sequence:
    assert follower.own is not None
    return follower.own


def _allowed(follower: _Follower) -> Allowed | None:
    return follower.rules.allowed() if follower.rules is not None else None


def _is_foreseeable(follower: _Follower) -> bool:
    """Whether what may come next is known beyond the next token."""
    now = _allowed(follower)
    return now is None or (now.state is not None and not now.besides)
