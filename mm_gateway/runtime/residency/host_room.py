"""How much room host memory has for the weights of models that left a GPU, and whose copies make way. Arithmetic only; moves nothing."""

from __future__ import annotations

from collections.abc import Iterable

from mm_gateway.runtime.residency.model import Model, WaiterT

FROM_HOST_SHARE = 0.1
"""Of what loading a model costs, what coming back from host memory does."""


class HostRoom:
    """
    Args:
        budget_bytes: for all copies together.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes

    def may_hold(self, model: Model[WaiterT]) -> bool:
        """Whether a copy of the model would fit, were it alone; what is on the CPU is in host memory already."""
        return model.device is not None and model.device != "cpu" and (model.need_bytes or 0) <= self._budget_bytes

    def reload_s(self, model: Model[WaiterT]) -> float:
        """What it will cost to have the model back once it has left."""
        return model.likely_load_s * FROM_HOST_SHARE if self.may_hold(model) else model.likely_load_s

    def take(self, model: Model[WaiterT], models: Iterable[Model[WaiterT]]) -> list[Model[WaiterT]] | None:
        """Reserve room for the model's copy; the models whose copies have to go for it, least recently used first.

        Returns:
            None where not even that is enough: then nothing has changed.
        """
        models = list(models)
        # Only a copy that lies there can be dropped; one on its way in or out belongs to the thread that moves it.
        kept = sorted((other for other in models if other.in_host), key=lambda other: other.last_used)
        excess = sum(other.host_bytes for other in models) + (model.need_bytes or 0) - self._budget_bytes
        if excess > sum(other.host_bytes for other in kept):
            return None
        dropped: list[Model[WaiterT]] = []
        while excess > 0:
            oldest = kept.pop(0)
            excess -= oldest.host_bytes
            oldest.in_host, oldest.host_bytes = False, 0
            dropped.append(oldest)
        model.host_bytes = model.need_bytes or 0
        return dropped
