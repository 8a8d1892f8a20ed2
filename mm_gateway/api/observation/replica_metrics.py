"""The processes that run models elsewhere, for the metrics; what their engines do is told by model. Gone ones are in it no more."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mm_gateway.entries import Fleet

_OF_REPLICA = ("replica", "node")


def replica_metrics(fleet: Fleet) -> Iterator[Metric]:
    """As they are now; counts are since the start of each."""
    states = GaugeMetricFamily("mm_gateway_replicas", "Replicas of the models, by what they do.", labels=("state",))
    for state, count in fleet.states.items():
        states.add_metric((state,), count)
    info = GaugeMetricFamily("mm_gateway_replica_info", "A replica that answers, and the GPUs that it sees.", labels=(*_OF_REPLICA, "gpus"))
    loads = CounterMetricFamily("mm_gateway_replica_model_loads", "Models that a replica loaded.", labels=_OF_REPLICA)
    evictions = CounterMetricFamily("mm_gateway_replica_model_evictions", "Models that left its memory.", labels=_OF_REPLICA)
    memory = GaugeMetricFamily("mm_gateway_device_memory_bytes", "That models take of a device.", labels=("device", *_OF_REPLICA))
    budget = GaugeMetricFamily("mm_gateway_device_memory_budget_bytes", "That they may take of it.", labels=("device", *_OF_REPLICA))
    for seen in fleet.seen:
        label = (seen.replica, seen.node)
        info.add_metric((*label, seen.gpus), 1)
        if (manager := seen.manager) is not None:
            loads.add_metric(label, manager.loads)
            evictions.add_metric(label, manager.evictions)
            for device, used in manager.memory.items():
                memory.add_metric((device, *label), used)
                if (allowed := manager.budgets.get(device)) is not None:
                    budget.add_metric((device, *label), allowed)
    return iter((states, info, loads, evictions, memory, budget))
