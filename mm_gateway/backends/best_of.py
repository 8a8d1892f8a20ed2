"""`best_of`: of many sampled choices per prompt, the n of highest mean log-probability; shared by backends that sample themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from mm_gateway.core import ChoiceFinished, GenerationEvent, TextDelta, TokenLogprob


async def keep_best(
    events: AsyncIterator[GenerationEvent], *, prompts: int, best_of: int, n: int, logprobs: int | None
) -> AsyncIterator[GenerationEvent]:
    """Collect all choices of all prompts, and pass on the best, renumbered; other events pass as they come.

    Args:
        events: with log-probabilities of every token. logprobs: whether the request itself asked for them.
    """
    deltas: dict[int, list[TextDelta]] = {index: [] for index in range(prompts * best_of)}
    finished: dict[int, ChoiceFinished] = {}
    async for event in events:
        match event:
            case TextDelta():
                deltas[event.index].append(event)
                continue
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
                            shown = delta.logprobs if logprobs is not None else ()
                            yield msgspec.structs.replace(delta, index=index, logprobs=shown)
                        yield ChoiceFinished(index, finished[chosen].finish_reason)
            case _:
                yield event


def _mean(deltas: list[TextDelta]) -> float:
    tokens: list[TokenLogprob] = [token for delta in deltas for token in delta.logprobs]
    known = [token.logprob for token in tokens if token.logprob is not None]
    return sum(known) / len(known) if known else 0.0
