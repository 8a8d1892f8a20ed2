"""Stop strings in text that arrives in pieces; knows nothing of tokens or of who writes the text."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Protocol


class TextStops(Protocol):
    """Ends a text that arrives in pieces."""

    @property
    def found(self) -> str | None:
        """The string that ended it; None: none has."""
        ...

    def add(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        """Returns the text that is free to go, and whether it ends there. Not to be called after that.

        Args:
            may_end: False: what is complete with this text ends nothing.
        """
        ...

    def end(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        """As `add`, of the last piece: nothing is held back."""
        ...


class StopStrings:
    """Finds stop strings in streamed text and holds back what may become one.

    The work is linear in the text, whatever the number and length of the strings, and what is found does not depend on how the
    text is cut into pieces: the string that is complete first ends the text; of several that end with one character, the longest.

    Args:
        stops: none of them empty. shown: those of them that are part of the text that they end.
    """

    def __init__(self, stops: Sequence[str], *, shown: frozenset[str] = frozenset()) -> None:
        self._automaton = _automaton(tuple(stops)) if stops else None
        self._shown = shown
        self._state = 0
        self._held = ""
        self.found: str | None = None
        """The string that ended the text; None: none has."""

    def add(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        """Returns the text that is free to go, and whether a stop string ended it. Not to be called after that.

        Args:
            may_end: False: a string that is complete with this text ends nothing; one that begins in it may.
        """
        automaton = self._automaton
        if automaton is None:
            return text, False
        state = self._state
        for position, char in enumerate(text, 1):
            state = automaton.step(state, char)
            if may_end and automaton.found[state]:
                whole = (self._held + text)[: len(self._held) + position]
                begin = len(whole) - automaton.found[state]
                self.found = whole[begin:]
                return whole if self.found in self._shown else whole[:begin], True
        whole = self._held + text
        free = len(whole) - automaton.size[state]
        self._state, self._held = state, whole[free:]
        return whole[:free], False

    def end(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        """As `add`, of the last piece: what was held back goes too."""
        free, stopped = self.add(text, may_end=may_end)
        return (free, True) if stopped else (free + self.flush(), False)

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held, self._state = self._held, "", 0
        return held


class _Automaton:
    """Aho and Corasick, "Efficient string matching" (1975). A state stands for a beginning of a string, 0 for the empty one: the
    longest that the text so far ends with.

    Attributes:
        size: characters of each state. found: of each state, the characters of the longest string that it ends with; 0: none.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.size = [0]
        self.found = [0]
        self._next: list[dict[str, int]] = [{}]
        for string in strings:
            self._insert(string)
        self._fallback = [0] * len(self._next)
        self._link()

    def step(self, state: int, char: str) -> int:
        """The state after one more character."""
        while (following := self._next[state].get(char)) is None:
            if state == 0:
                return 0
            state = self._fallback[state]
        return following

    def _insert(self, string: str) -> None:
        state = 0
        for char in string:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self.size.append(self.size[state] + 1)
                self.found.append(0)
            state = self._next[state][char]
        self.found[state] = len(string)

    def _link(self) -> None:
        """Fallbacks: of each state, shorter ones first, the longest of its endings that is a state too."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for char, following in self._next[state].items():
                fallback = self._fallback[following] = self.step(self._fallback[state], char)
                self.found[following] = self.found[following] or self.found[fallback]
                waiting.append(following)


# The choices of one request share it: 64 strings of 1,024 characters take 15 MB and 60 ms.
@functools.lru_cache(maxsize=4)
def _automaton(stops: tuple[str, ...]) -> _Automaton:
    return _Automaton(stops)
