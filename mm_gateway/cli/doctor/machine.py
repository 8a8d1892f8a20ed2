"""Checks of the machine: processor, memory, GPU, disks, the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from mm_gateway.cli.doctor.finding import Finding
from mm_gateway.configuration.settings import Settings
from mm_gateway.hub.download import size_in_words

LITTLE_MEMORY_BYTES, TOO_LITTLE_MEMORY_BYTES = 4 * 2**30, 2**30
LITTLE_DISK_BYTES, TOO_LITTLE_DISK_BYTES = 10 * 2**30, 2**28
HUB_S = 5.0


def processor() -> Finding:
    """Which kernels models on the CPU are computed with."""
    from mm_gateway.runtime.machine import cpu_kernels

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        kernels = cpu_kernels()
    except ValueError as error:
        return Finding("cpu", "fail", str(error), "Unset MM_CPU_KERNELS, and the best ones are chosen")
    found = f"{cores} cores"
    if kernels.name == "portable":
        advice = "Models work, at a fraction of the speed of a processor with AVX2"
        return Finding("cpu", "warn", f"{found}; portable kernels: the processor has no instructions that others are for", advice)
    if kernels.name is not None:
        return Finding("cpu", "ok", f"{found}; {kernels.name} kernels")
    if kernels.turned_off:
        return Finding("cpu", "warn", f"{found}; MM_CPU_KERNELS=none turns the kernels off", "Unset MM_CPU_KERNELS")
    if kernels.compiler is not None:
        return Finding("cpu", "ok", f"{found}; the kernels are compiled with {kernels.compiler} when the first model loads, in a minute")
    advice = "Install g++ or clang++ (apt install g++). Without, models are slower, and weights of fewer bits take 16"
    return Finding("cpu", "warn", f"{found}; no kernels, and no C++ compiler to make them with", advice)


def memory(settings: Settings) -> Finding:
    """What models may take of it."""
    from mm_gateway.runtime.machine import cpu_memory_bytes

    total = cpu_memory_bytes()
    free = min(psutil.virtual_memory().available, total)
    chosen = settings.memory
    budget = chosen.budget_bytes if chosen.budget_bytes is not None else int(total * chosen.memory_threshold)
    found = f"{size_in_words(free)} of {size_in_words(total)} are free; models may take {size_in_words(budget)}"
    if free < TOO_LITTLE_MEMORY_BYTES:
        return Finding("memory", "fail", found, "Free some, or give the container more: no model fits")
    if budget > free:
        advice = "Free some, or lower memory.memory_threshold or memory.budget_bytes, so that models leave before the memory is full"
        return Finding("memory", "warn", found, advice)
    if free < LITTLE_MEMORY_BYTES:
        return Finding("memory", "warn", found, "Take small models, or quantization: 4bit")
    return Finding("memory", "ok", found)


def gpu(settings: Settings) -> Iterator[Finding]:
    """Whether there is one, and torch computes on it."""
    from mm_gateway.runtime.machine import gpu_without_torch, gpus, torch_build

    found = gpus()
    for device in found:
        free = f"{size_in_words(device.free_bytes)} of {size_in_words(device.total_bytes)} are free"
        yield Finding("gpu", "ok", f"{device.device}: {device.name}, {free}")
    if found:
        return
    asked = [name for name, config in settings.models.items() if config.backend == "local" and config.device.startswith("cuda")]
    if gpu_without_torch():
        advice = "Install a torch that is built for it (https://pytorch.org/get-started/locally), and its driver"
        yield Finding("gpu", "fail" if asked else "warn", f"there is one, but torch {torch_build()} cannot compute on it", advice)
    elif asked:
        advice = "Set device: auto or cpu in their entries"
        yield Finding("gpu", "fail", f"there is none, and {', '.join(asked)} are to run on one", advice)
    else:
        yield Finding("gpu", "ok", "there is none; models run on the CPU")


def disks(settings: Settings) -> Iterator[Finding]:
    """Room for downloads, and for what is stored."""
    from mm_gateway.hub.reaching import cache_folder

    yield _disk("cache", Path(cache_folder()), LITTLE_DISK_BYTES, "models are downloaded to", "HF_HOME")
    what = "sessions, keys and usage are" if settings.storage.url is None else "the index of files is"
    yield _disk("data", settings.storage.path("x").parent, TOO_LITTLE_DISK_BYTES, f"{what} stored in", "storage.folder")


def _disk(check: str, folder: Path, little_bytes: int, use: str, setting: str) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(check, "fail", f"{folder}, which {use}, cannot be written", f"Let this user write there, or set {setting}")
    free = shutil.disk_usage(there).free
    found = f"{size_in_words(free)} are free in {folder}, which {use}"
    if free < TOO_LITTLE_DISK_BYTES:
        return Finding(check, "fail", found, f"Free some, or set {setting} to a larger disk")
    return Finding(check, "warn" if free < little_bytes else "ok", found, f"Free some, or set {setting}" if free < little_bytes else "")


def hub(settings: Settings) -> Finding:
    """Whether models can be downloaded, where any has to be."""
    from mm_gateway.hub.reaching import hub_address, hub_answers

    why_not = hub_answers(HUB_S)
    if why_not is None:
        return Finding("hub", "ok", f"{hub_address()} answers")
    of_hub = [name for name, config in settings.models.items() if config.backend == "local" and config.path is None]
    needed = [name for name in of_hub if not Path(settings.models[name].model_name).exists()]
    if not needed and not settings.allow:
        return Finding("hub", "ok", f"{why_not}; no entry needs it")
    advice = "Check the network, HTTPS_PROXY and HF_ENDPOINT; what is downloaded already works without, and a folder by path"
    return Finding("hub", "warn", f"{why_not}; {', '.join(needed) or 'allow'} may need it", advice)
