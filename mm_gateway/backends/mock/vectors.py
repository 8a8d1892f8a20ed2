"""The mock's vectors and token ids: made up from the text, always the same."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence

from mm_gateway.errors import InvalidRequestError

DIMENSIONS = 256
_ID_BYTES = 6
"""48 bits: every JSON library reads such a number exactly."""
_REMEMBERED = 65_536


def mock_vector(text: str, dimensions: int | None) -> list[float]:
    """A vector of length 1 that sums up the words of the text, so that texts that share words are near each other."""
    size = dimensions or DIMENSIONS
    if size > DIMENSIONS:
        raise InvalidRequestError(f"dimensions must be between 1 and {DIMENSIONS} for this model", param="dimensions")
    sums = [0.0] * DIMENSIONS
    for word, times in Counter(text.lower().split() or [text]).items():
        digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(DIMENSIONS)
        for position, byte in enumerate(digest):
            sums[position] += times * (byte - 127.5)
    length = math.sqrt(sum(number * number for number in sums[:size])) or 1.0
    return [number / length for number in sums[:size]]


def word_ids(words: Sequence[str]) -> tuple[int, ...]:
    """An id for each word: a hash of it."""
    return tuple(int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()) for word in words)


class MockVocabulary:
    """Reads ids back: those of the last 65,536 words. Of one event loop."""

    def __init__(self) -> None:
        self._words: OrderedDict[int, str] = OrderedDict()

    def remember(self, ids: Sequence[int], words: Sequence[str]) -> None:
        for id, word in zip(ids[-_REMEMBERED:], words[-_REMEMBERED:], strict=True):
            self._words[id] = word
            self._words.move_to_end(id)
        while len(self._words) > _REMEMBERED:
            self._words.popitem(last=False)

    def text(self, ids: Sequence[int]) -> str:
        unknown = next((id for id in ids if id not in self._words), None)
        if unknown is not None:
            raise InvalidRequestError(f"tokens: the mock has given no word the id {unknown}", param="tokens")
        return "".join(self._words[id] for id in ids)
