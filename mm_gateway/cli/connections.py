"""Connections on which no whole request has arrived: bounded, so that those who open many and say nothing shut nobody out."""

from __future__ import annotations

import ipaddress
from typing import Protocol


class Connection(Protocol):
    """One that can be told that its place is needed."""

    def give_up(self) -> None: ...


class WaitingConnections:
    """Those that owe a request, each address's oldest first.

    Beyond the bound one is closed: the oldest of the address that has most of them. So a flood from one address costs that address's
    own connections, and a proxy before the gateway, which is one address for everybody, still has the whole bound; there the oldest
    go, and honest clients owe nothing for longer than a network's delay.

    Args:
        bound: >= 1.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._count = 0
        self._of_address: dict[str | int, dict[Connection, None]] = {}

    def add(self, connection: Connection, address: str) -> None:
        """It owes a request from now on; nothing where it did already."""
        own = self._of_address.setdefault(_network(address), {})
        if connection in own:
            return
        own[connection] = None
        self._count += 1
        if self._count > self._bound:
            next(iter(max(self._of_address.values(), key=len))).give_up()

    def discard(self, connection: Connection, address: str) -> None:
        """Its request is there, or it is gone."""
        network = _network(address)
        own = self._of_address.get(network, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._of_address[network]


def _network(address: str) -> str | int:
    """Who has one IPv6 address has a network of 2**64 of them."""
    return int(ipaddress.IPv6Address(address.partition("%")[0])) >> 64 if ":" in address else address
