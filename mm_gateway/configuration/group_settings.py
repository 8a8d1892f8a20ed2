"""What `backend: group` adds to an entry of `models.yaml`: its members, and how requests are shared among them."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.ranges import AtLeastOne, LoadFactor, NotNegative, Positive, Share

Strategy = Literal["least-loaded", "round-robin", "weighted", "fallback", "prefix-aware"]


class GroupMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `members`; its name alone stands for it with the defaults of the others."""

    name: Annotated[str, Meta(description="Another entry of `models`, of any backend, a group included.")]
    weight: Annotated[
        Positive,
        Meta(description="Its share of the requests beside the others'; `round-robin` and `fallback` know no weights."),
    ] = 1.0
    max_requests: Annotated[
        AtLeastOne | None,
        Meta(description="Requests of this group that it answers at a time; beyond it others are asked. null: any."),
    ] = None
    requests_per_minute: Annotated[
        AtLeastOne | None, Meta(description="Requests a minute that it gets from this group, retries included. null: any.")
    ] = None


class GroupRouting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`routing` of a group."""

    load_factor: Annotated[
        LoadFactor,
        Meta(
            description="prefix-aware: requests that a member answers at a time, as a multiple of its share of all; beyond it a "
            "conversation goes to the next member."
        ),
    ] = 1.25
    requests_before_load: Annotated[
        AtLeastOne | None,
        Meta(
            description="least-loaded and prefix-aware: requests at a time, for a weight of 1, that members which have the model in memory "
            "get before one is asked that would have to load it. null: who has it in memory does not count."
        ),
    ] = 4
    max_wait_s: Annotated[
        NotNegative, Meta(description="Seconds for which a request waits where all members are at their limits; then it gets a 429 or 503.")
    ] = 30.0
    first_token_timeout_s: Annotated[
        Positive | None,
        Meta(
            description="Seconds without any sign of a reply after which another member is asked; progress of a local model's load is one. "
            "null: until the member itself gives up (`timeout_s`)."
        ),
    ] = None
    retry_share: Annotated[Share, Meta(description="Retries, as a share of requests, beyond which failures go to the client.")] = 0.2
    retries_per_second: Annotated[
        NotNegative, Meta(description="Retries that are allowed beside that share, so that a few requests may be retried too.")
    ] = 10.0
    retry_delay_s: Annotated[
        NotNegative,
        Meta(description="Longest wait before the first retry of a request, doubled with each one more; the wait itself is random."),
    ] = 0.05
    eject_after: Annotated[
        AtLeastOne, Meta(description="Failures among a member's last ten requests and probes after which it is ejected: others are asked.")
    ] = 3
    ejection_s: Annotated[Positive, Meta(description="Seconds for which it is, doubled each time that it fails again at once.")] = 5.0
    max_ejection_s: Annotated[Positive, Meta(description="Seconds for which it is at most.")] = 300.0
    slow_factor: Annotated[
        LoadFactor | None,
        Meta(
            description="A member whose median time to the first token is so many times that of the others is ejected too, but never more "
            "than half of them. null: never."
        ),
    ] = 5.0
    probe_interval_s: Annotated[
        Positive | None,
        Meta(
            description="Seconds between looks at whether members serve, once the group was used: `/health` of a remote server, or its "
            "`/v1/models`; of a local model what is known of it without loading it. null: none."
        ),
    ] = 10.0
    probe_timeout_s: Annotated[Positive, Meta(description="Seconds in which a remote server has to answer one.")] = 5.0


def group_fault(name: str, members: Mapping[str, tuple[GroupMember, ...]], entries: Mapping[str, object]) -> str | None:
    """What is wrong with the members of a group; None: nothing.

    Args:
        members: of each group, by the group's name. entries: all entries by name, groups included.
    """
    names = [member.name for member in members[name]]
    if not names:
        return "a group needs at least one member, the name of another entry"
    if (unknown := next((member for member in names if member not in entries), None)) is not None:
        return f"{unknown!r} is not among the models: {', '.join(entries)}"
    if (twice := next((member for member in names if names.count(member) > 1), None)) is not None:
        return f"{twice!r} is given twice; its weight says how much it gets"
    return None


def inside_out(members: Mapping[str, tuple[GroupMember, ...]]) -> tuple[str, ...]:
    """The names of all groups, each after the groups that it holds.

    Raises:
        ValueError: a group holds itself; the message says by which way.
    """
    graph = {group: [member.name for member in held if member.name in members] for group, held in members.items()}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ValueError(f"a group must not hold itself: {' -> '.join(reversed(error.args[1]))}") from None
