"""`ray:` of `gateway.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mm_gateway.configuration.ranges import AtLeastOne, AtLeastOneKiB, AtLeastZero, NotNegative, Positive


class RaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ray:` of `gateway.yaml`: how models are served by Ray Serve, with `mm-gateway serve --ray` or `serve deploy`."""

    min_replicas: Annotated[AtLeastZero, Meta(description="Replicas of the models that are always there; 0: none while nobody asks.")] = 1
    max_replicas: Annotated[AtLeastOne, Meta(description="Replicas that there may be when many ask; not fewer than `min_replicas`.")] = 1
    target_requests: Annotated[
        Positive, Meta(description="Requests, running and queued, for each of which there is to be one replica more.")
    ] = 32.0
    upscale_delay_s: Annotated[NotNegative, Meta(description="Seconds for which more replicas must be wanted before one starts.")] = 10.0
    downscale_delay_s: Annotated[NotNegative, Meta(description="Seconds for which fewer must be wanted before one ends.")] = 300.0
    max_requests: Annotated[AtLeastOne, Meta(description="Requests that a replica takes at a time; beyond it they wait for any.")] = 256
    num_cpus: Annotated[NotNegative, Meta(description="CPUs that a replica reserves; its node must have them free.")] = 1.0
    num_gpus: Annotated[
        NotNegative,
        Meta(
            description="GPUs that a replica has to itself; below 1: the share of a GPU, and of its memory, that it has beside others. "
            "Above 1: a whole number."
        ),
    ] = 0.0
    memory_bytes: Annotated[
        AtLeastOneKiB | None,
        Meta(
            description="Memory of its node that a replica reserves, all of which its models on a CPU may take. null: they take what "
            "`memory` says, and without GPUs a node has one replica at most."
        ),
    ] = None
    routing: Annotated[
        Literal["least-loaded", "prefix"],
        Meta(
            description="Which replica answers: the less loaded of two, those first that have the model; or the one that answered "
            "conversations with this beginning before, and when it is full the next."
        ),
    ] = "least-loaded"
    drain_timeout_s: Annotated[Positive, Meta(description="Seconds that running requests get when their replica is to end.")] = 600.0
    max_surge_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Of `serve deploy`: replicas of a new version, as a share of all, that start before old ones end. There must be "
            "room for them, or the old ones stay. 0: old ones end first; with one replica nothing is answered meanwhile.",
        ),
    ] = 0
    ingress_replicas: Annotated[AtLeastOne, Meta(description="Of `serve deploy`: replicas of the API.")] = 1
