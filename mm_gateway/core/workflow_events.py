"""What workflows say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class WorkflowStep(msgspec.Struct, frozen=True, tag="step"):
    """A stage of a workflow that has ended.

    Attributes:
        success: it did what it is for; False with `error`. degraded: it did less than it is for; `error` says why.
        input_count, output_count: how many things it was given and gave: sources, pages, sections…
    """

    name: str
    success: bool
    duration_s: float
    input_count: int = 1
    output_count: int = 1
    degraded: bool = False
    error: str | None = None

    def told(self) -> dict[str, Any]:
        """As replies and results show it."""
        return msgspec.structs.asdict(self)


class WorkflowOutcome(msgspec.Struct, frozen=True, tag="outcome"):
    """What a workflow did; follows the text, before the choices finish.

    Attributes:
        model: that answered. metadata: what the workflow tells of its work, as JSON values: `query`, `sources`…
        result: for callers in Python, where it is not the text alone.
    """

    model: str
    steps: tuple[WorkflowStep, ...]
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    result: Any = None

    @property
    def degraded(self) -> bool:
        """A step did less than it is for."""
        return any(step.degraded or not step.success for step in self.steps)
