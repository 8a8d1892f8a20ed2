"""Texts of JSON that comes piece by piece: what of a string is known before it is complete."""

from __future__ import annotations

import json
import re

_SPECIAL = re.compile(r'["\\]')
_ESCAPE = re.compile(
    r"""\\(?:["\\/bfnrt]
    |u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2} # two for one character
    |u[dD][89abAB][0-9a-fA-F]{2}(?=[^\\]|\\[^u]|\\u[^dD]|\\u[dD][^c-fC-F])
    |u(?![dD][89abAB])[0-9a-fA-F]{4})""",
    re.VERBOSE,
)


class JsonText:
    """Reads one string, from behind its opening quote. rest: what came behind its closing quote; None: it is still open."""

    def __init__(self) -> None:
        self.rest: str | None = None
        self._waiting = ""

    def feed(self, piece: str) -> str:
        """What of the text is known by now, beyond what was told."""
        if self.rest is not None:
            self.rest += piece
            return ""
        self._waiting += piece
        text: list[str] = []
        at = 0
        while at < len(self._waiting):
            special = _SPECIAL.search(self._waiting, at)
            end = special.start() if special is not None else len(self._waiting)
            text.append(self._waiting[at:end])
            at = end
            if self._waiting[at : at + 1] == '"':
                self.rest = self._waiting[at + 1 :]
                break
            if at < len(self._waiting):
                escape = _ESCAPE.match(self._waiting, at)
                if escape is None and len(self._waiting) - at < 12:
                    break  # the rest of it is to come
                size = len(escape[0]) if escape is not None else 2
                text.append(_unescaped(self._waiting[at : at + size]))
                at += size
        self._waiting = self._waiting[at:]
        return "".join(text)


def _unescaped(escape: str) -> str:
    try:
        text: str = json.loads(f'"{escape}"')
    except ValueError:
        return escape
    return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= text <= "\udfff" else text  # half a character, which no UTF-8 can hold
