"""`best_of`: of many sampled choices per prompt, the n of highest mean log-probability; for backends that sample themselves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable

import msgspec

from mm_gateway.core import ChoiceFinished, CompletionInput, GenerationEvent, GenerationRequest, TextDelta, TokenLogprob


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
    wider = msgspec.structs.replace(config, n=best_of, logprobs=config.logprobs or 0)
    prompts = len(request.input.prompts) if isinstance(request.input, CompletionInput) else 1
    events = generate(msgspec.structs.replace(request, config=wider, best_of=None))
    async with contextlib.aclosing(_keep_best(events, prompts, best_of, config.n, shows_logprobs=config.logprobs is not None)) as best:
        async for event in best:
            yield event


async def _keep_best(
    source: AsyncGenerator[GenerationEvent], prompts: int, best_of: int, n: int, *, shows_logprobs: bool
) -> AsyncGenerator[GenerationEvent]:
    """Collect all choices of all prompts, and pass on the best, renumbered; other events pass as they come."""
    deltas: dict[int, list[TextDelta]] = {index: [] for index in range(prompts * best_of)}
    finished: dict[int, ChoiceFinished] = {}
    async with contextlib.aclosing(source) as events:
        async for event in events:
            match event:
                case TextDelta():
                    deltas[event.index].append(event)
                case ChoiceFinished():
                    finished[event.index] = event
                    if len(finished) < len(deltas):
                        continue
                    for prompt in range(prompts):
                        candidates = range(prompt * best_of, (prompt + 1) * best_of)
                        best = sorted(candidates, key=lambda index: -_mean(deltas[index]))[:n]
                        for place, chosen in enumerate(best):
                            index = prompt * n + place
                            for delta in deltas[chosen]:
                                yield msgspec.structs.replace(delta, index=index, logprobs=delta.logprobs if shows_logprobs else ())
                            yield ChoiceFinished(index, finished[chosen].finish_reason)
                case _:
                    yield event


def _mean(deltas: list[TextDelta]) -> float:
    tokens: list[TokenLogprob] = [token for delta in deltas for token in delta.logprobs]
    known = [token.logprob for token in tokens if token.logprob is not None]
    return sum(known) / len(known) if known else 0.0
