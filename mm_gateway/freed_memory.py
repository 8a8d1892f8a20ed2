"""Gives freed memory back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_memory() -> None:
    """glibc keeps freed memory of smaller objects for itself unless told otherwise; elsewhere nothing happens."""
    if sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:
            release(0)
