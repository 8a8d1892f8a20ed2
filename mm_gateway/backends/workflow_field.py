"""The body's `workflow` object is for workflows; other backends on this machine refuse it."""

from __future__ import annotations

from mm_gateway.core import GenerationRequest
from mm_gateway.errors import UnsupportedParameterError


def refuse_workflow(request: GenerationRequest) -> None:
    """Raises UnsupportedParameterError where a request to a plain model has parameters of a workflow."""
    if request.workflow is not None:
        raise UnsupportedParameterError(f"workflow is only for workflows, and {request.model} is none", param="workflow")
