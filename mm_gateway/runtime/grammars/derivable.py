"""What follows from rules of the form "the head holds if all of its body do": the least set that is closed under them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def derivable(rules: Iterable[tuple[Node, Sequence[Node]]]) -> set[Node]:
    """Nodes that hold; time is linear in the length of the rules (Dowling and Gallier, 1984, https://doi.org/10.1016/0743-1066(84)90014-1).

    A rule without a body is a fact. What is in no head never holds.
    """
    heads: list[Node] = []
    missing: list[int] = []  # of each rule: how many of its body are not known to hold
    waiting: dict[Node, list[int]] = defaultdict(list)
    found: deque[Node] = deque()
    for head, body in rules:
        needed = set(body)
        for node in needed:
            waiting[node].append(len(heads))
        heads.append(head)
        missing.append(len(needed))
        if not needed:
            found.append(head)
    holds: set[Node] = set()
    while found:
        node = found.popleft()
        if node in holds:
            continue
        holds.add(node)
        for rule in waiting[node]:
            missing[rule] -= 1
            if not missing[rule]:
                found.append(heads[rule])
    return holds
