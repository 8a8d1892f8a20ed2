"""JSON that is still being written, read again and again (jiter needs microseconds for it)."""

from __future__ import annotations

from typing import Any

import jiter


class PartialJson:
    """The value that a growing text stands for so far; strings in it may be cut.

    What stands before the first bracket is skipped: models that no grammar holds like to say something first.
    """

    def __init__(self) -> None:
        self._data = b""
        self._begun = False

    def feed(self, text: str) -> Any:
        """The value with more text; None where none has begun.

        Raises:
            ValueError: it is no JSON.
        """
        if not self._begun:
            starts = [at for at in map(text.find, "{[") if at >= 0]
            if not starts:
                return None
            text = text[min(starts) :]
            self._begun = True
        self._data += text.encode("utf-8", "replace")
        return jiter.from_json(self._data, partial_mode="trailing-strings")
