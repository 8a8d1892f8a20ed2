"""How much memory a device has."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil


def total_memory(device: str) -> int:
    """Bytes of a device, as `cpu` or `cuda:0`; a container's limit counts. torch is imported for a GPU alone."""
    if device == "cpu":
        # A container may be allowed less than the machine has (https://docs.kernel.org/admin-guide/cgroup-v2.html).
        try:
            limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        except (OSError, ValueError):  # no such file, or "max"
            limit = sys.maxsize
        return min(psutil.virtual_memory().total, limit)
    import torch

    return torch.cuda.get_device_properties(torch.device(device)).total_memory
