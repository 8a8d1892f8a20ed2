"""The most probable token of each row of logits, by the compiled library."""

from __future__ import annotations

import ctypes

import torch

from mm_gateway.runtime.kernels.library import library


def most_probable(logits: torch.Tensor) -> list[int] | None:
    """The place of each row's largest number, the first of equal ones; None where there are no kernels for this tensor.

    Args:
        logits: [rows, n].

    Returns:
        By row; -1 where its largest number is infinite, or one of them is NaN.
    """
    loaded = library()
    if loaded is None or logits.device.type != "cpu" or logits.dtype != torch.float32 or not logits.is_contiguous():
        return None
    rows, width = logits.shape
    found = (ctypes.c_int64 * rows)()
    loaded.argmax_rows(logits.data_ptr(), rows, width, found, torch.get_num_threads())
    return list(found)
