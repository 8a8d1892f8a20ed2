"""How much room there is: bytes on each device, and places over all of them. Arithmetic only; who has to leave is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, GatewayError, ModelUnavailableError
from mm_gateway.runtime.residency.model import Model, WaiterT


class Room:
    """What models in memory leave free.

    Args:
        places: models in memory at a time, >= 1. budget_of: bytes that models may take on a device; None: without bound.
    """

    def __init__(self, places: int, budget_of: Callable[[str], int | None]) -> None:
        self.places = places
        self._budget_of = budget_of

    def fits(self, model: Model[WaiterT], others: Sequence[Model[WaiterT]]) -> bool:
        """Whether the model fits beside others."""
        return self.place_free(others) and self.missing_bytes(model, others) <= 0

    def place_free(self, others: Sequence[Model[WaiterT]]) -> bool:
        return len(others) < self.places

    def missing_bytes(self, model: Model[WaiterT], others: Iterable[Model[WaiterT]]) -> int:
        """On the model's device, beside others; negative where there is more than it needs."""
        assert model.device is not None and model.need_bytes is not None
        budget = self._budget_of(model.device)
        if budget is None:
            return 0
        return total_bytes(other for other in others if other.device == model.device) + model.need_bytes - budget

    def free_bytes(self, model: Model[WaiterT], others: Iterable[Model[WaiterT]]) -> int:
        """On the model's device, beside others."""
        assert model.device is not None
        return (self._budget_of(model.device) or 0) - total_bytes(other for other in others if other.device == model.device)

    def never_fits(self, model: Model[WaiterT], pinned: Sequence[Model[WaiterT]]) -> GatewayError | None:
        """Why no eviction can help beside the pinned models; None where one can."""
        if self.missing_bytes(model, pinned) > 0:
            assert model.device is not None and model.need_bytes is not None
            budget, taken = self._budget_of(model.device) or 0, total_bytes(other for other in pinned if other.device == model.device)
            held = f", of which pinned models hold {_gigabytes(taken)}" if taken else ""
            return ModelUnavailableError(
                f"The model needs {_gigabytes(model.need_bytes)} on {model.device}, where models may take {_gigabytes(budget)}{held}. "
                f"{OUT_OF_MEMORY_ADVICE}",
                retryable=False,
            )
        if len(pinned) >= self.places:
            return ModelUnavailableError(
                f"All {self.places} places for models are held by pinned ones. Raise max_cached_models, or unpin one", retryable=False
            )
        return None


def overdue(model: Model[WaiterT], others: Sequence[Model[WaiterT]], timeout_s: float, retry_after_s: float) -> GatewayError:
    """What is told whoever waited for room for too long; without names, since not every key may know of every model.

    Args:
        others: in memory now. timeout_s: for which it waited.
    """
    if model.phase in ("ready", "evicting"):
        found = f"it is about to leave memory, which {_requests(model.leases)} still use"
    else:
        found = f"it needs {_gigabytes(model.need_bytes or 0)} on {model.device}, and {_stays(others)}"
    return ModelUnavailableError(
        f"The model waited for room for {timeout_s:g} seconds: {found}. Try again later. More memory for models, a larger "
        "max_cached_models or memory.room_timeout_s, or fewer pinned models may help",
        retryable=True,
        retry_after_s=retry_after_s,
    )


def _stays(models: Sequence[Model[WaiterT]]) -> str:
    """Why models are in memory."""
    used = [model for model in models if model.phase == "ready" and model.leases]
    counts = {
        f"in use by {_requests(sum(model.leases for model in used))}": len(used),
        "pinned": sum(model.pinned and model not in used for model in models),
        "loading": sum(model.phase == "loading" for model in models),
        "leaving": sum(model.phase == "evicting" for model in models),
    }
    known = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return f"{len(models)} other models are in memory ({known or 'idle'})"


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


def total_bytes(models: Iterable[Model[WaiterT]]) -> int:
    """What models take together."""
    return sum(model.need_bytes or 0 for model in models)


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
