"""How many replicas of the models run, and, where some have no place, what they want that the cluster has not free."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import msgspec

from mm_gateway.configuration.ray_settings import RaySettings

WORDS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_bytes"}
"""Ray's names of what replicas reserve -> ours, in the order in which they are told."""
POLL_S = 0.2
WITHOUT_PLACE_S = 2.0
"""For which a replica waits for a place before it is said to have none; where there is room it takes less."""


class Placement(msgspec.Struct, frozen=True):
    """Replicas now.

    Attributes:
        running: those that answer. starting: those that have a place, and will. waiting: those without one. why: they have none, in words.
        failed: why none can start at all, in Serve's words; "": nothing is known to be amiss.
        settled: all run that are to, and none of an older version.
    """

    running: int
    starting: int = 0
    waiting: int = 0
    why: str = ""
    failed: str = ""
    settled: bool = False

    @property
    def nowhere(self) -> bool:
        """Nobody answers, and nobody will before the cluster has room."""
        return self.waiting > 0 and not self.running and not self.starting


class Node(msgspec.Struct, frozen=True):
    """What a node has, by Ray's names, and what of it is free."""

    total: Mapping[str, float]
    free: Mapping[str, float]


def reserved(ray: RaySettings) -> dict[str, float]:
    """What each replica takes of a node, by Ray's names."""
    return {"CPU": ray.num_cpus, "GPU": ray.num_gpus, "memory": float(ray.memory_bytes or 0)}


def one_a_node(ray: RaySettings) -> bool:
    """Whether no two replicas may share a node: each would take its share of the node's memory as if it were alone there."""
    return ray.memory_bytes is None and not ray.num_gpus


class Sight:
    """Looks at the replicas. Whoever looks waits for Serve and for Ray.

    Args:
        application, deployment: Serve's names of theirs.
    """

    def __init__(self, application: str, deployment: str, ray: RaySettings) -> None:
        self._application = application
        self._deployment = deployment
        self._ray = ray
        self._waiting_since: float | None = None

    def look(self) -> Placement | None:
        """As they are now. None: Serve does not tell, as while it builds a new version of the application, whose replicas go on."""
        from ray import serve  # type: ignore[import-not-found]

        found = serve.status().applications.get(self._application)
        models = found.deployments.get(self._deployment) if found is not None else None
        if found is None or models is None:
            return None if found is not None and found.status == "DEPLOYING" else Placement(0)
        states = models.replica_states
        starting = states.get("STARTING", 0) + states.get("UPDATING", 0)
        waiting, why = self._without_place(starting)
        failed = models.message if "DEPLOY_FAILED" in (found.status, models.status) else ""
        return Placement(states.get("RUNNING", 0), starting - waiting, waiting, why, failed, found.status == "RUNNING")

    def started(self) -> Placement:
        """Wait until all run that are to be there, and for which there is a place.

        Raises:
            RuntimeError: they fail to start, with Serve's words.
        """
        while True:
            now = self.look()
            if now is not None and now.failed:
                raise RuntimeError(now.failed)
            if now is not None and (now.settled or (now.waiting and not now.starting)):
                return now
            time.sleep(POLL_S)

    def _without_place(self, starting: int) -> tuple[int, str]:
        """How many of those that start have had no place for a while, and why."""
        if starting:
            wanted, nodes = asked_for(self._ray)
            if wanted:
                now = time.monotonic()
                self._waiting_since = self._waiting_since or now
                if now - self._waiting_since < WITHOUT_PLACE_S:
                    return 0, ""
                return min(wanted, starting), lacking(self._ray, nodes)
        self._waiting_since = None
        return 0, ""


def asked_for(settings: RaySettings) -> tuple[int, list[Node]]:
    """Replicas that the cluster has been asked for and has no place for now; and its nodes. As `ray status` tells it."""
    import ray  # type: ignore[import-not-found]
    from ray.autoscaler.v2.sdk import get_cluster_status  # type: ignore[import-not-found]

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    wanted = {name: amount for name, amount in reserved(settings).items() if amount}
    asked = [entry for demand in status.resource_demands.ray_task_actor_demand for entry in demand.bundles_by_count]
    count = sum(
        entry.count for entry in asked if all(math.isclose(entry.bundle.get(name, 0), wanted[name], rel_tol=1e-3) for name in wanted)
    )
    usages = [node.resource_usage.usage for node in (*status.active_nodes, *status.idle_nodes)]
    return count, [
        Node({one.resource_name: one.total for one in usage}, {one.resource_name: one.total - one.used for one in usage})
        for usage in usages
    ]


def lacking(ray: RaySettings, nodes: Sequence[Node]) -> str:
    """What a replica wants, and what there is."""
    wanted = {name: amount for name, amount in reserved(ray).items() if amount}
    asked = ", ".join(f"{WORDS[name]} {_amount(name, amount)}" for name, amount in wanted.items()) or "nothing"
    there = []
    for name in wanted:
        free = [node.free.get(name, 0) for node in nodes]
        all_of_it = _amount(name, sum(node.total.get(name, 0) for node in nodes))
        there.append(
            f"{WORDS[name]}: {_amount(name, sum(free))} of {all_of_it} free, at most {_amount(name, max(free, default=0))} on one node"
        )
    alone = ", and a node to itself, since memory_bytes is not set" if one_a_node(ray) else ""
    return f"each wants {asked} on one node{alone}; {len(nodes)} {'node has' if len(nodes) == 1 else 'nodes have'} {'; '.join(there)}"


def _amount(name: str, value: float) -> str:
    return f"{value / 2**30:.1f}GiB" if name == "memory" else f"{value:g}"
