"""What groups do with their members, for the metrics. Counts of a group begin anew when a reload made another one of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mm_gateway.backends.groups.backend import Group

_OF_MEMBER = ("model_name", "member")


def group_metrics(groups: Iterable[Group]) -> Iterator[Metric]:
    """As they are now."""
    requests = CounterMetricFamily("mm_gateway_group_requests", "Requests that a group sent to a member, retries too.", labels=_OF_MEMBER)
    failures = CounterMetricFamily("mm_gateway_group_failures", "Of these, those that the member failed.", labels=_OF_MEMBER)
    ejections = CounterMetricFamily("mm_gateway_group_ejections", "Times that a member was ejected.", labels=_OF_MEMBER)
    running = GaugeMetricFamily("mm_gateway_group_running", "Requests of a group that a member answers.", labels=_OF_MEMBER)
    asked = GaugeMetricFamily("mm_gateway_group_member_asked", "1: neither ejected nor drained.", labels=_OF_MEMBER)
    waiting = GaugeMetricFamily("mm_gateway_group_waiting", "Requests that wait for a member with room.", labels=("model_name",))
    retries = CounterMetricFamily("mm_gateway_group_retries", "Requests that were sent to one more member.", labels=("model_name",))
    unretried = CounterMetricFamily(
        "mm_gateway_group_retries_refused", "Failures that clients saw for want of a budget of retries.", labels=("model_name",)
    )
    for group in groups:
        for member in group.router.members.values():
            labels = (group.name, member.name)
            requests.add_metric(labels, member.requests)
            failures.add_metric(labels, member.failures)
            ejections.add_metric(labels, member.health.ejections)
            running.add_metric(labels, member.running)
            asked.add_metric(labels, int(member.health.ejected_until is None and not member.draining))
        waiting.add_metric((group.name,), group.waiting)
        retries.add_metric((group.name,), group.router.retries)
        unretried.add_metric((group.name,), group.router.unretried)
    return iter((requests, failures, ejections, running, asked, waiting, retries, unretried))
