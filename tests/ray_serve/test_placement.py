"""What is said of replicas for which a cluster has no place."""

from __future__ import annotations

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.ray_settings import RaySettings
from mm_gateway.configuration.settings import MemorySettings, Settings
from mm_gateway.ray_serve.deployments import _of_replicas  # pyright: ignore[reportPrivateUsage]
from mm_gateway.ray_serve.placement import Node, Placement, lacking, one_a_node

SMALL = Node({"CPU": 4.0, "memory": 2.0**33}, {"CPU": 1.0, "memory": 2.0**31})
LARGE = Node({"CPU": 8.0, "GPU": 2.0, "memory": 2.0**36}, {"CPU": 2.0, "GPU": 0.5, "memory": 2.0**35})


def test_what_is_wanted_and_what_there_is_are_told() -> None:
    assert lacking(RaySettings(num_gpus=2, memory_bytes=2**30), [SMALL, LARGE, LARGE]) == (
        "each wants num_cpus 1, num_gpus 2, memory_bytes 1.0GiB on one node; 3 nodes have num_cpus: 5 of 20 free, at most 2 on one node; "
        "num_gpus: 1 of 4 free, at most 0.5 on one node; memory_bytes: 66.0GiB of 136.0GiB free, at most 32.0GiB on one node"
    )
    assert "a node to itself, since memory_bytes is not set; 1 node has num_cpus: 1 of 4 free" in lacking(RaySettings(), [SMALL])


def test_nobody_is_refused_while_a_replica_starts() -> None:
    assert Placement(0, 0, 2).nowhere
    assert not Placement(0, 1, 2).nowhere and not Placement(1, 0, 2).nowhere and not Placement(0).nowhere


def test_replicas_share_a_node_where_each_knows_what_it_may_take() -> None:
    assert one_a_node(RaySettings())
    assert not one_a_node(RaySettings(memory_bytes=2**30)) and not one_a_node(RaySettings(num_gpus=0.5))


def test_replicas_that_share_a_gpu_take_their_share_of_its_memory() -> None:
    models = {"m": ModelConfig(model_name="m")}
    shared = _of_replicas(Settings(models=models, ray=RaySettings(num_gpus=0.25), memory=MemorySettings(memory_threshold=0.8)))
    assert shared.memory.memory_threshold == 0.2
    alone = _of_replicas(Settings(models=models, ray=RaySettings(num_gpus=2), memory=MemorySettings(memory_threshold=0.8)))
    assert alone.memory.memory_threshold == 0.8
