"""Finds a checkpoint's files: a local folder, or a repository of the hub brought to the local cache with progress."""

from __future__ import annotations

import errno
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from tqdm import tqdm

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import ModelLoadError

_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "tokenizer*"]


def checkpoint_folder(config: ModelConfig, progress: ProgressCallback, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint; downloads what is not there, without `weights` only the other files.

    Raises:
        ModelLoadError: the folder is missing, the repository unknown or gated, no network, disk full.
    """
    local = config.path or (config.model_name if Path(config.model_name).expanduser().is_dir() else None)
    if local is not None:
        folder = Path(local).expanduser()
        if not folder.is_dir():
            raise ModelLoadError(f"{config.model_name}: the folder {local} does not exist")
        if not (folder / "config.json").is_file():
            raise ModelLoadError(f"{config.model_name}: the folder {local} holds no config.json, so it is no checkpoint")
        return folder
    return _download(config, progress, weights=weights)


def _download(config: ModelConfig, progress: ProgressCallback, *, weights: bool) -> Path:
    name = config.model_name
    try:
        # A complete copy in the cache is enough, with no network at all, unless a moving revision must be looked up.
        patterns = [*_TEXT_FILES, *(["*.py"] if config.trust_remote_code else []), *(_weight_files(config) if weights else [])]
        progress(Progress("loading", f"{name}: downloading", 0.0))
        bar = _bar(name, progress)
        return Path(snapshot_download(name, revision=config.revision, allow_patterns=patterns, tqdm_class=bar))  # type: ignore[arg-type]
    except GatedRepoError as error:
        raise ModelLoadError(f"{name} is gated on the hub: accept its terms there, then set HF_TOKEN to your access token") from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(f"{name} has no revision {config.revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"{name} is not on the hub (or is private): check model_name; for a folder of your own set path; for a private one set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(name) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelLoadError(f"{name}: the disk is full. Free some space, or set HF_HOME to a larger disk", retryable=True) from error
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            raise ModelLoadError(
                f"{name}: the hub refused access ({error.response.status_code}). Check model_name, and that HF_TOKEN holds a valid token"
            ) from error
        if isinstance(error, HfHubHTTPError):
            raise ModelLoadError(f"{name}: the hub answered {error.response.status_code}. Try again later", retryable=True) from error
        raise _unreachable(name) from error
    except Exception as error:  # the HTTP library's own errors of connection
        if type(error).__module__.split(".")[0] in ("httpx", "httpcore", "requests", "urllib3"):
            raise _unreachable(name) from error
        raise


def _weight_files(config: ModelConfig) -> list[str]:
    """safetensors where the repository has them, PyTorch's own format otherwise: never both."""
    try:
        # The listing by tree would try again for half a minute where there is no network.
        siblings = HfApi().model_info(config.model_name, revision=config.revision).siblings or []
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception:  # noqa: BLE001 - no network, in whatever words: the cache decides
        return ["*.safetensors", "*.bin"]
    return (
        ["*.safetensors"] if any(file.rfilename.endswith(".safetensors") and "/" not in file.rfilename for file in siblings) else ["*.bin"]
    )


def _unreachable(name: str) -> ModelLoadError:
    return ModelLoadError(
        f"{name} is not in the local cache and the hub cannot be reached. "
        "Check the network, or download the model elsewhere and set path to its folder",
        retryable=True,
    )


def _bar(name: str, progress: ProgressCallback) -> type[tqdm]:
    """A progress bar class that reports instead of drawing; huggingface_hub makes one for bytes and one for files."""

    class ReportingBar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            kwargs["disable"] = False
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

        def display(self, *args: object, **kwargs: object) -> None:
            if self.unit == "B" and self.total:
                fraction = min(1.0, self.n / self.total)
                progress(Progress("loading", f"{name}: {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB", fraction))

    return ReportingBar
