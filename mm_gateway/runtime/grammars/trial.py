"""What the worker process does with a grammar: compile it once, over bytes in place of a model's tokens, and compute its first mask.

Its compiler recurses over what clients send. So this happens on a stack of a quarter of the size that threads of the gateway have:
what did not run out of it here cannot run out of it there.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from llguidance import LLMatcher, LLTokenizer

from mm_gateway.runtime.grammars.sources import LIMITS, error_of

_STACK_BYTES = 2 << 20


_TOKENIZER = LLTokenizer("byte", slices=[])


def try_out(source: str) -> str | None:
    """What is wrong with a grammar; None: it compiles. Ends the process where it is too deep."""
    result: Future[str | None] = Future()
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=lambda: result.set_result(_try_out(source)))
    thread.start()
    thread.join()
    return result.result(0)


def _try_out(source: str) -> str | None:
    matcher = LLMatcher(_TOKENIZER, source, log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return error_of(matcher)
