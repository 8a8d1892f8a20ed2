"""Finds a checkpoint's files: a local folder, or a repository of the hub brought to the local cache with progress."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fnmatch import filter as fnmatch_filter
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import ModelLoadError
from mm_gateway.hub.download import download

_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "tokenizer*"]


def checkpoint_folder(config: ModelConfig, progress: ProgressCallback, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint; downloads what is not there, without `weights` only the other files.

    Raises:
        ModelLoadError: the folder is missing; DownloadError: the repository is unknown or gated, no network, too little room on the disk.
    """
    name = config.model_name
    # A revision is one of a repository, whatever folders are here.
    is_folder = config.revision is None and Path(name).expanduser().is_dir()
    local = config.path or (name if is_folder else None)
    if local is None:
        progress(Progress("loading", f"{name}: downloading", 0.0))
        choose = partial(wanted_files, weights=weights, code=config.trust_remote_code)
        folder = download(name, choose, revision=config.revision, bar=_bar(name, progress))
    else:
        folder = Path(local).expanduser()
        if not folder.is_dir():
            raise ModelLoadError(f"{name}: the folder {local} does not exist")
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"{name}: {f'the folder {local}' if local else 'its repository'} holds no config.json, so it is no checkpoint")
    return folder


def wanted_files(there: Sequence[str], *, weights: bool, code: bool) -> list[str]:
    """Of a repository's files those that a load reads: safetensors where it has them, PyTorch's own format otherwise, never both."""
    kinds = [*_TEXT_FILES, *(["*.py"] if code else [])]
    wanted = [file for file in there if any(fnmatch(file, kind) for kind in kinds)]
    return wanted + weight_files(there) if weights else wanted


def weight_files(there: Sequence[str]) -> list[str]:
    """The weights among a repository's files. They stand beside config.json; what is in folders is for other programs."""
    beside = [file for file in there if "/" not in file]
    found = fnmatch_filter(beside, "*.safetensors") or fnmatch_filter(beside, "*.bin")
    # Mistral publishes its weights a second time, for its own programs.
    return [file for file in found if not file.startswith("consolidated")] or found


def _bar(name: str, progress: ProgressCallback) -> type[tqdm]:
    """A progress bar class that reports instead of drawing; huggingface_hub makes one for bytes and one for files."""

    class ReportingBar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            kwargs["disable"] = False
            # Closing a bar ends its line, also of one that draws nothing.
            kwargs["file"] = io.StringIO()
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

        def display(self, *args: object, **kwargs: object) -> None:
            if self.unit == "B" and self.total:
                fraction = min(1.0, self.n / self.total)
                progress(Progress("loading", f"{name}: {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB", fraction))

    return ReportingBar
