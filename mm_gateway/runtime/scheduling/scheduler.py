"""Decides which tokens of which sequences the next forward pass computes; pure, knows nothing of tensors, threads or text.

Each step, within a budget of tokens:

1. every decoding sequence gets its one token, so streams never stall;
2. what is left goes to sequences in prefill, one after the other, in the order in which they would be done if they shared it equally
   (fair queueing, https://doi.org/10.1145/75247.75248): a long prompt neither blocks short ones nor starves, and of several
   of one length the first need not wait for the last (https://doi.org/10.1145/781027.781057);
3. waiting sequences are admitted in turn between requests, while there is KV space, a running place and budget. One whose
   prefix a running sequence is computing is passed over meanwhile, and at most LOOKAHEAD of them in a step: the cost of a
   step does not grow with the queue.

4. decoding sequences take guessed tokens along, where the step has few rows: what followed the same words before (`PromptLookup`), else
   what a `Drafter` says. The pass that computes one token checks the next ones too (speculative decoding,
   https://arxiv.org/abs/2211.17192).

Where a decoding sequence finds no KV space, the youngest running one is preempted: its room goes, its tokens stay, it
waits in front and recomputes them. Chunked prefill as in Sarathi-Serve (https://arxiv.org/abs/2403.02310), recompute
as in vLLM (https://arxiv.org/abs/2309.06180). So does one that outgrew its rotary angles (`LengthScaling`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from typing import Protocol

from mm_gateway.errors import EngineError
from mm_gateway.runtime.scheduling.allocator import KVAllocator, Refusal
from mm_gateway.runtime.scheduling.length_scaling import LengthScaling
from mm_gateway.runtime.scheduling.sequence import Sequence

FREE_ROWS = 16
"""Rows of a step that cost a CPU little more than one: its weights are read once for all of them. Guesses have what decodes leave."""
LOOKAHEAD = 16
"""Requests at the head of the queue that are passed over in one step because they wait for a prefix."""


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """Compute `count` tokens of `seq` from `seq.computed` on; `sample` when these are its last. Guesses are among them."""

    seq: Sequence
    count: int
    sample: bool


class Drafter(Protocol):
    """Guesses what sequences say next."""

    def draft(self, room: AbstractSequence[tuple[Sequence, int]], decodes: int, rows: int) -> None:
        """Add guesses to the tokens of some sequences (`Sequence.draft_len`).

        Args:
            room: sequences without guesses, with how many each may have. decodes: sequences of the step. rows: guesses of all together.
        """
        ...


class Scheduler:
    """Waiting and running queues of one engine. Called by one thread.

    Args:
        kv: gives room to sequences.
        max_running: sequences in the running queue, >= 1.
        max_step_tokens: tokens of one forward pass, >= max_running.
        max_prefills: sequences in prefill at a time, >= 1, unless one step has room for all of them.
        scaling: of rotary angles by length; None: they depend on nothing but the position.
        drafter: guesses where nothing can be looked up; None: nobody does.
    """

    def __init__(
        self,
        kv: KVAllocator,
        *,
        max_running: int,
        max_step_tokens: int,
        max_prefills: int = 16,
        scaling: LengthScaling | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self._kv = kv
        self._drafter = drafter
        self._scaling = scaling
        self._max_running = max_running
        self._max_step_tokens = max(max_step_tokens, max_running)
        self._max_prefills = max_prefills
        self._running: dict[int, Sequence] = {}  # in order of admission
        self._preempted: deque[Sequence] = deque()
        self._waiting: OrderedDict[int, dict[int, Sequence]] = OrderedDict()  # by group, next group first; then by id
        self._waiting_count = 0
        self._shared = 0.0  # tokens that each sequence in prefill would have been given so far, if all got the same
        self.preemptions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return self._waiting_count + len(self._preempted)

    @property
    def kv_tokens(self) -> int:
        """Room of the KV cache in tokens."""
        return self._kv.capacity_tokens

    @property
    def kv_used_tokens(self) -> int:
        """Of it, what sequences hold; may be read by any thread."""
        return self._kv.capacity_tokens - self._kv.free_tokens

    def add(self, seq: Sequence) -> None:
        """Queue a sequence behind its group.

        Raises:
            EngineError: with its output it is longer than the cache can ever hold.
        """
        longest = seq.prompt_len + max(0, seq.max_tokens - 1)  # the last token is sampled and never computed
        if longest > self._kv.max_tokens:
            raise EngineError(f"A sequence of {longest} tokens can never be held by a KV cache of {self._kv.max_tokens}")
        self._waiting.setdefault(seq.group, {})[seq.id] = seq
        self._waiting_count += 1

    def is_running(self, seq: Sequence) -> bool:
        return seq.id in self._running

    def places(self) -> dict[int, int]:
        """Groups with waiting sequences -> place in the queue, from 1, in the order in which they will be admitted."""
        groups = dict.fromkeys([*(seq.group for seq in self._preempted), *self._waiting])
        return {group: place for place, group in enumerate(groups, 1)}

    def remove(self, seq: Sequence, *, discard: bool = False) -> None:
        """A sequence finished or was cancelled, wherever it is; its room is free at once. Unknown ones are ignored.

        discard: nothing of what it computed may be reused (see `KVAllocator.discard`).
        """
        if self._running.pop(seq.id, None) is not None:
            (self._kv.discard if discard else self._kv.release)(seq)
            return
        if seq in self._preempted:
            self._preempted.remove(seq)
            return
        group = self._waiting.get(seq.group)
        if group is not None and group.pop(seq.id, None) is not None:
            self._waiting_count -= 1
            if not group:
                del self._waiting[seq.group]

    def schedule(self) -> list[ScheduledSequence]:
        """The next step: decoding sequences first, then chunks of prefills. Empty when there is nothing to do, or nothing until a prefix
        has arrived.

        Raises:
            EngineError: there is something to do and nothing can be done, which no later step would change.
        """
        decodes = self._extend_decodes()
        budget = self._max_step_tokens - len(decodes)
        self._admit(budget)
        decoding = {seq.id for seq in decodes}
        prefills = sorted((seq for seq in self._running.values() if seq.id not in decoding), key=lambda seq: seq.turn)
        if prefills:
            self._shared += budget / len(prefills)
        chunks: list[ScheduledSequence] = []
        for seq in prefills:
            if count := min(seq.remaining, budget):
                chunks.append(ScheduledSequence(seq, count, count == seq.remaining))
                budget -= count
        if not chunks:
            self._add_drafts(decodes)
        step = [ScheduledSequence(seq, 1 + seq.draft_len, True) for seq in decodes] + chunks
        if not step and (self.running or self.waiting) and not self._kv.transferring:
            raise EngineError(self._standstill())
        return step

    def computed(self, seq: Sequence, count: int) -> None:
        """The next `count` tokens of a scheduled sequence went through the model; none of them is a guess any more."""
        seq.computed += count
        self._kv.commit(seq)

    def _standstill(self) -> str:
        waiting = [*self._preempted, *(seq for group in self._waiting.values() for seq in group.values())]
        longest = max((len(seq.tokens) for seq in [*self._running.values(), *waiting]), default=0)
        return (
            f"Nothing can be scheduled: {self.running} sequences run, {self.waiting} wait, the longest needs {longest} tokens, "
            f"{self._kv.free_tokens} of at most {self._kv.max_tokens} a sequence are free"
        )

    def _extend_decodes(self) -> list[Sequence]:
        decodes: list[Sequence] = []
        for seq in list(self._running.values()):
            if seq.id not in self._running or seq.remaining != 1 or not seq.computed:
                continue
            if self._scaling is not None and self._scaling.is_outgrown(seq):
                self._recompute(seq)
                continue
            while not self._kv.extend(seq):
                youngest = next(reversed(self._running.values()))
                self.preemptions += 1
                self._recompute(youngest)
                if youngest is seq:
                    break
            else:
                decodes.append(seq)
        return [seq for seq in decodes if seq.id in self._running]

    def _add_drafts(self, decodes: list[Sequence]) -> None:
        rows = FREE_ROWS - len(decodes)
        undrafted: list[tuple[Sequence, int]] = []
        for seq in decodes:
            if rows < 1:
                break
            room = self._kv.max_tokens - len(seq.tokens)
            seq.look_up(min(rows, room))
            rows -= seq.draft_len
            if not seq.draft_len:
                undrafted.append((seq, min(room, seq.draft_room)))
        if self._drafter is not None and rows > 0:
            self._drafter.draft(undrafted, len(decodes), rows)
        for seq in decodes:
            if seq.draft_len and not self._kv.extend(seq):
                seq.take_draft()  # nobody makes room for a guess

    def _recompute(self, seq: Sequence) -> None:
        """It waits in front, without room."""
        del self._running[seq.id]
        self._kv.release(seq)
        seq.computed = 0
        self._preempted.appendleft(seq)

    def _admit(self, budget: int) -> None:
        prefills = [seq.remaining for seq in self._running.values() if seq.remaining > 1]
        prefilling, tokens = len(prefills), sum(prefills)
        passed_over: set[int] = set()
        # Many short ones that fit one step together wait for nothing.
        while len(self._running) < self._max_running and prefilling < budget and (prefilling < self._max_prefills or tokens < budget):
            seq = self._next_waiting(passed_over)
            if seq is None:
                return
            if self._scaling is not None:
                self._scaling.begin(seq)
            cached = self._kv.allocate(seq)
            if cached is Refusal.WAIT_FOR_PREFIX:
                passed_over.add(seq.group)
                if len(passed_over) == LOOKAHEAD or (self._preempted and self._preempted[0] is seq):
                    return
                continue
            if isinstance(cached, Refusal):
                return  # in order: a smaller one behind must not starve this one
            self._pop(seq)
            seq.computed = cached
            if seq.cached is None:
                seq.cached = cached
            seq.turn = self._shared + seq.remaining
            self._running[seq.id] = seq
            prefilling += 1
            tokens += seq.remaining

    def _next_waiting(self, passed_over: set[int]) -> Sequence | None:
        if self._preempted:
            return self._preempted[0]
        return next((next(iter(queue.values())) for group, queue in self._waiting.items() if group not in passed_over), None)

    def _pop(self, seq: Sequence) -> None:
        if self._preempted and self._preempted[0] is seq:
            self._preempted.popleft()
            return
        queue = self._waiting[seq.group]
        del queue[seq.id]
        self._waiting_count -= 1
        if queue:
            self._waiting.move_to_end(seq.group)  # the next group's turn
        else:
            del self._waiting[seq.group]
