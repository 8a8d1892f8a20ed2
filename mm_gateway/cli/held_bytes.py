"""What all clients together may have sent of requests that are not answered yet."""

from __future__ import annotations

from typing import Protocol


class Sender(Protocol):
    """A connection that can be told that what it sends is too much."""

    def refuse_for_room(self) -> None:
        """Answer that the server is busy, and close."""
        ...


class HeldBytes:
    """Counts the bytes of requests from their arrival until they are answered.

    Beyond the bound the largest request that is still arriving is refused, so that many who send large bodies and never end them
    cannot keep small ones out.

    Args:
        bound: bytes.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._arriving: dict[Sender, int] = {}
        self._arrived: dict[Sender, int] = {}

    def add(self, sender: Sender, size: int) -> None:
        """So many bytes more of a request that is arriving. May refuse this one or another."""
        self._arriving[sender] = self._arriving.get(sender, 0) + size
        self.total += size
        while self.total > self.bound and self._arriving:
            largest = max(self._arriving, key=self._arriving.__getitem__)
            self.release(largest)
            largest.refuse_for_room()

    def complete(self, sender: Sender) -> None:
        """Its request is there; it will be answered."""
        self._arrived[sender] = self._arrived.get(sender, 0) + self._arriving.pop(sender, 0)

    def release(self, sender: Sender) -> None:
        """Its requests are answered, or it is gone."""
        self.total -= self._arriving.pop(sender, 0) + self._arrived.pop(sender, 0)
