"""Which exceptions mean that memory ran out; torch raises one class on a GPU and a plain RuntimeError on a CPU."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less memory would have helped."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "can't allocate memory" in str(error))
