"""What a model computes, in a few bytes: kept keys and values are only for one that computes the same to the last bit."""

from __future__ import annotations

from hashlib import blake2b

from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence
from mm_gateway.runtime.scheduling.sequence import Sequence

_TOKENS = 8


def model_fingerprint(runner: ModelRunner, vocab_size: int) -> bytes:
    """Of the bits of the logits after a few tokens: weights, adapters, precision, code and processor all show in them.

    Called as `ModelRunner.execute`, while nothing runs.
    """
    seq = Sequence(-1, -1, [at * 7919 % vocab_size for at in range(1, 1 + _TOKENS)], GenerationConfig(), max_tokens=1, seed=0)
    allocator = runner.cache.allocator
    allocator.allocate(seq)
    found = blake2b(digest_size=32)
    try:
        for count in (_TOKENS - 1, 1):
            logits = runner.execute([ScheduledSequence(seq, count, True)]).logits
            found.update(logits.float().cpu().numpy().tobytes())
            seq.computed += count
    finally:
        allocator.discard(seq)
    return found.digest()
