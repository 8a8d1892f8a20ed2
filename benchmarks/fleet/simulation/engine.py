"""One model in memory: how prompts and replies share what it may compute."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable

from benchmarks.fleet.simulation.figures import ModelFigures
from benchmarks.fleet.simulation.workload import MAX_RUNNING, Turn

PROMPTS_SHARE = 0.5
"""Of an engine's time that goes to reading a prompt while replies are written."""
TINY_S, TINY_TOKENS = 1e-9, 1e-6
"""What rounding may leave."""


class Engine:
    """One model in memory: prompts are read one after the other, replies written together; finished ones are kept while there is room."""

    def __init__(self, model: ModelFigures, numbers: Callable[[], int]) -> None:
        self.model = model
        self._numbers = numbers
        self.waiting = deque[Turn]()
        self.reading: Turn | None = None
        self.reading_s = 0.0
        self.written = 0.0
        self.replies: list[tuple[float, int, Turn]] = []
        self.running_tokens = self.kept_tokens = 0
        self.kept = OrderedDict[int, int]()

    @property
    def active(self) -> bool:
        return self.reading is not None or bool(self.replies)

    def turns(self) -> list[Turn]:
        return [*self.waiting, *([self.reading] if self.reading else []), *(turn for _, _, turn in self.replies)]

    def take(self) -> None:
        """Begin with the next prompt, where there is room."""
        if self.reading is not None or not self.waiting or len(self.replies) >= MAX_RUNNING:
            return
        turn = self.waiting[0]
        tokens = turn.prompt + turn.output
        if self.running_tokens and self.running_tokens + tokens > self.model.kv_tokens:
            return
        self.waiting.popleft()
        cached = self.kept.pop(turn.conversation, 0)
        self.kept_tokens -= cached
        turn.cached = min(cached, turn.prompt - 1)
        self.running_tokens += tokens
        while self.kept and self.running_tokens + self.kept_tokens > self.model.kv_tokens:
            self.kept_tokens -= self.kept.popitem(last=False)[1]
        self.reading, self.reading_s = turn, (turn.prompt - turn.cached) * self.model.token_s

    def compute(self, seconds: float) -> None:
        """So much of the machine's time was its own."""
        if self.reading is not None:
            prompts_s = seconds * PROMPTS_SHARE if self.replies else seconds
            self.reading_s -= prompts_s
            seconds -= prompts_s
        if self.replies:
            self.written += seconds / self.model.step(len(self.replies))

    def next_s(self) -> float:
        """Seconds of the machine's time until a prompt is read or a reply is written."""
        both = self.reading is not None and self.replies
        soonest = float("inf")
        if self.reading is not None:
            soonest = self.reading_s / PROMPTS_SHARE if both else self.reading_s
        if self.replies:
            writing_s = (self.replies[0][0] - self.written) * self.model.step(len(self.replies))
            soonest = min(soonest, writing_s / (1 - PROMPTS_SHARE) if both else writing_s)
        return max(soonest, 0.0)

    def written_until(self) -> list[Turn]:
        """Replies that are whole."""
        found: list[Turn] = []
        while self.replies and self.replies[0][0] <= self.written + TINY_TOKENS:
            turn = heapq.heappop(self.replies)[2]
            tokens = turn.prompt + turn.output
            self.running_tokens -= tokens
            self.kept[turn.conversation] = tokens
            self.kept_tokens += tokens
            found.append(turn)
        return found

    def read_until(self) -> Turn | None:
        """The prompt that was read; its reply begins."""
        turn = self.reading
        if turn is None or self.reading_s > TINY_S:
            return None
        self.reading = None
        heapq.heappush(self.replies, (self.written + turn.output, self._numbers(), turn))
        return turn
