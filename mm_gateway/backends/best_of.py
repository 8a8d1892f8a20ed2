"""`best_of`: of many sampled choices per prompt, the n of highest mean log-probability; for backends that sample themselves."""

from __future__ import annotations

import array
import contextlib
import io
from collections.abc import AsyncGenerator, Callable

import msgspec

from mm_gateway.core import ChoiceFinished, CompletionInput, GenerationEvent, GenerationRequest, ReasoningDelta, TextDelta, TokenLogprob


async def with_best_of(
    generate: Callable[[GenerationRequest], AsyncGenerator[GenerationEvent]], request: GenerationRequest
) -> AsyncGenerator[GenerationEvent]:
    """The request's events. With `best_of` more choices than `n` are generated, and the best are passed on when all are complete.

    Args:
        generate: generates `n` choices, and knows nothing of `best_of`.
    """
    config, best_of = request.config, request.best_of
    if best_of is None or best_of <= config.n:
        async with contextlib.aclosing(generate(request)) as events:
            async for event in events:
                yield event
        return
    wider = msgspec.structs.replace(config, n=best_of, logprobs=config.logprobs or 0, end_logprobs=True)
    prompts = len(request.input.prompts) if isinstance(request.input, CompletionInput) else 1
    events = generate(msgspec.structs.replace(request, config=wider, best_of=None))
    async with contextlib.aclosing(_keep_best(events, prompts, best_of, config.n, shows_logprobs=config.logprobs is not None)) as best:
        async for event in best:
            yield event


async def _keep_best(
    source: AsyncGenerator[GenerationEvent], prompts: int, best_of: int, n: int, *, shows_logprobs: bool
) -> AsyncGenerator[GenerationEvent]:
    """Collect all choices of all prompts, and pass on the best, renumbered; other events pass as they come."""
    candidates = [_Candidate() for _ in range(prompts * best_of)]
    finished: dict[int, ChoiceFinished] = {}
    async with contextlib.aclosing(source) as events:
        async for event in events:
            match event:
                case ReasoningDelta():
                    candidates[event.index].thoughts.append(event)
                case TextDelta():
                    candidates[event.index].add(event, shows_logprobs)
                case ChoiceFinished():
                    finished[event.index] = event
                    if len(finished) < len(candidates):
                        continue
                    for prompt in range(prompts):
                        of_prompt = range(prompt * best_of, (prompt + 1) * best_of)
                        best = sorted(of_prompt, key=lambda index: -candidates[index].mean)[:n]
                        for place, chosen in enumerate(best):
                            index = prompt * n + place
                            for thought in candidates[chosen].thoughts:
                                yield msgspec.structs.replace(thought, index=index)
                            yield candidates[chosen].delta(index)
                            yield msgspec.structs.replace(finished[chosen], index=index)
                case _:
                    yield event


class _Candidate:
    """What a choice has so far, as one event. Joined and summed up as it comes: of all of them there may be a million tokens, and that
    many objects take a third of a second to put together and to free.
    """

    def __init__(self) -> None:
        self.thoughts: list[ReasoningDelta] = []
        self._text = io.StringIO()
        self._token_ids = array.array("q")
        self._logprobs: list[TokenLogprob] = []
        self._sum = 0.0
        self._known = 0

    def add(self, event: TextDelta, shows_logprobs: bool) -> None:
        self._text.write(event.text)
        self._token_ids.extend(event.token_ids)
        if shows_logprobs:
            self._logprobs += event.logprobs
        for token in event.logprobs:
            if token.logprob is not None:
                self._sum += token.logprob
                self._known += 1

    def delta(self, index: int) -> TextDelta:
        """All of it, for the choice of this place."""
        return TextDelta(index, self._text.getvalue(), tuple(self._token_ids), tuple(self._logprobs))

    @property
    def mean(self) -> float:
        return self._sum / self._known if self._known else 0.0
