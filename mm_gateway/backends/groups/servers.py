"""Who stands behind the members of all groups: several entries may be models of one server, whose work they share."""

from __future__ import annotations

from weakref import WeakValueDictionary


class Server:
    """One server. running: requests of all groups of this gateway that it answers."""

    def __init__(self) -> None:
        self.running = 0


class Servers:
    """Those of a gateway, each for as long as a group asks it."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Server] = WeakValueDictionary()

    def at(self, address: str) -> Server:
        """The one of this address, or of this name where it has none."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = Server()
        return found
