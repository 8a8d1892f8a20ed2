"""Moves a model's weights between its GPU and host memory, so that coming back needs no disk."""

from __future__ import annotations

import gc

import torch
from transformers import PreTrainedModel

from mm_gateway.freed_memory import give_back_memory
from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel


def can_move(loaded: LoadedModel) -> bool:
    """Weights that bitsandbytes or a packing laid out for one device stay there."""
    return loaded.device.type != "cpu" and not loaded.is_quantized_by_transformers


def to_host(model: PreTrainedModel) -> None:
    """In place; pinned where there is a GPU, so that the way back runs at the speed of the bus."""
    pin = torch.cuda.is_available()
    for tensor in (*model.parameters(), *model.buffers()):
        host = tensor.data.to("cpu")
        tensor.data = host.pin_memory() if pin else host


def to_device(model: PreTrainedModel, device: torch.device) -> None:
    """In place; returns when everything is there."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(device, non_blocking=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reclaim() -> None:
    """Give what nobody references any more back to the system."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    give_back_memory()
