"""One sequence of tokens on its way through the engine: its state, and nothing of how it is scheduled, stored or sampled."""

from __future__ import annotations

from collections.abc import Callable

from mm_gateway.configuration.model_config import Pooling
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.scheduling.barred_tokens import BarredTokens
from mm_gateway.runtime.scheduling.prompt_lookup import PromptLookup


class Sequence:
    """Prompt and output of one choice, in one growing list.

    Attributes:
        tokens: prompt followed by output ids.
        computed: tokens whose keys and values are in the cache. The rest, `tokens[computed:]`, goes through the model
            next; once all are through, one more token is sampled. So a decoding sequence has one token left, a new one
            its whole prompt, a preempted one everything that it had.
        max_tokens: output tokens allowed, >= 0.
        group: sequences of one request share it; fairness is between groups.
        score_prompt: the log-probabilities of the prompt are wanted and have not gone out yet.
        reuse_prefix: False where every prompt position must run: for `score_prompt`, or because its hidden state was asked for.
        pooling: of its hidden states, for a sequence that is to be embedded instead of continued; else None.
        barred: tokens that must not come next; None: all may.
        thought_len: output tokens that are thoughts, not the answer. in_thought: the next one is of a thought.
        is_forced: the next one is settled, whatever is barred.
        lookup: guesses tokens that may come next; None: nothing is guessed.
        count_accepted: how many of some tokens a grammar lets come next, one after the other; None: all.
        draft_len: of `tokens`, the last ones that are such guesses: only while a step checks them.
        drafted: they are a draft model's; else looked up.
        turn: its place among those in prefill, the smallest first.
        angle_len: where rotary angles depend on the length: what they are made for, or the position after a token where that is more.
        angles: names those of its keys, since others' keys are only for sequences with the same; 0: those of training.
    """

    __slots__ = (
        "angle_len",
        "angles",
        "barred",
        "cached",
        "computed",
        "config",
        "count_accepted",
        "draft_len",
        "drafted",
        "group",
        "id",
        "in_thought",
        "is_forced",
        "lookup",
        "max_tokens",
        "pooling",
        "prompt_len",
        "score_prompt",
        "seed",
        "thought_len",
        "tokens",
        "turn",
    )

    def __init__(
        self,
        id: int,
        group: int,
        prompt: list[int],
        config: GenerationConfig,
        *,
        max_tokens: int,
        seed: int,
        pooling: Pooling | None = None,
        barred: BarredTokens | None = None,
    ) -> None:
        self.id = id
        self.group = group
        self.tokens = list(prompt)
        self.prompt_len = len(prompt)
        self.config = config
        self.max_tokens = max_tokens
        self.seed = seed
        self.score_prompt = config.prompt_logprobs is not None
        self.pooling = pooling
        self.barred = barred
        self.thought_len = 0
        self.in_thought = self.is_forced = False
        self.lookup: PromptLookup | None = None
        self.count_accepted: Callable[[list[int]], int] | None = None
        self.draft_len = 0
        self.drafted = False
        self.angle_len = self.angles = 0
        self.turn = 0.0
        self.computed = 0
        self.cached: int | None = None
        """Prompt tokens found in the cache at first admission; None before."""

    @property
    def reuse_prefix(self) -> bool:
        return not self.score_prompt and self.pooling is None

    @property
    def remaining(self) -> int:
        """Tokens that still have to go through the model, >= 1; guesses count."""
        return len(self.tokens) - self.computed

    @property
    def output_len(self) -> int:
        return len(self.tokens) - self.draft_len - self.prompt_len

    @property
    def known(self) -> int:
        """Tokens that are no guesses."""
        return len(self.tokens) - self.draft_len

    def barred_tokens(self, ahead: int = 0) -> set[int]:
        """What must not come next, or behind the first `ahead` guesses, were all of them right and of the same thought or answer."""
        if self.barred is None or self.is_forced:
            return set()
        output = self.tokens[self.prompt_len : self.known + ahead]
        thought_len = self.thought_len + ahead if self.in_thought else self.thought_len
        return self.barred.next(output, 0, thought_len=thought_len, in_thought=self.in_thought)

    @property
    def draft_room(self) -> int:
        """Guesses that it may have: the last token has none behind it."""
        return 0 if self.score_prompt else self.max_tokens - self.output_len - 1

    def look_up(self, most: int) -> None:
        """Take at most `most` tokens along that followed before what it says now."""
        if self.lookup is not None:
            draft = self.lookup.guess(self.tokens, min(most, self.draft_room), answered=-1 if self.in_thought else self.answer_len)
            if draft and self.count_accepted is not None:
                draft = draft[: self.count_accepted(draft)]
            self.tokens += draft
            self.draft_len, self.drafted = len(draft), False

    def take_draft(self) -> list[int]:
        """The guessed tokens, which are no part of the sequence any more."""
        draft = self.tokens[len(self.tokens) - self.draft_len :]
        del self.tokens[len(self.tokens) - self.draft_len :]
        self.draft_len = 0
        return draft

    @property
    def answer_len(self) -> int:
        """Output tokens without those of thoughts."""
        return self.output_len - self.thought_len
