"""Brings files of a repository to the local cache: first what there is, then whether the disk has room for it, then the files.

Files that are there are not fetched again, nor looked up where a complete copy is there and the hub cannot be asked. A connection that
breaks off is taken up where it broke, also by the next download.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import tqdm as hub_bar
from tqdm import tqdm

from mm_gateway.configuration.hub_names import gguf_parts
from mm_gateway.errors import DownloadError
from mm_gateway.hub.failures import hub_failures
from mm_gateway.hub.resuming import resume_downloads

Choose = Callable[[Sequence[str]], Sequence[str]]
"""Names of a repository's files -> those that are wanted."""


WORKERS = 4
"""Files that come at a time; more do not make it faster on a line of people's."""


def download(name: str, choose: Choose, *, revision: str | None = None, bar: type[tqdm] | None = None) -> Path:
    """The folder in the cache that holds a repository's files, the chosen ones complete.

    Args:
        name: ORGANISATION/NAME. revision: branch, tag or commit; None: the default branch.
        bar: class of the progress bars that the library makes: one of the bytes that come, one of the bytes that are there
            (unit `B`), one of files.

    Raises:
        DownloadError: the repository or the revision is unknown or gated, no network, too little room on the disk.
    """
    resume_downloads()
    with hub_failures(name, revision):
        commit, there = _listed(name, revision)
        wanted = None if there is None else [glob.escape(file) for file in choose(there)]
        if commit is not None and wanted is not None:
            _check_room(name, commit, wanted)
        folder = snapshot_download(name, revision=revision, allow_patterns=wanted, max_workers=WORKERS, tqdm_class=bar)  # type: ignore[arg-type]
        return Path(folder)


def cached(name: str, choose: Choose, *, revision: str | None = None) -> Path | None:
    """The folder in the cache where it holds the chosen files, complete; None too where none are chosen. Asks nobody."""
    folder, there = cached_folder(name, revision=revision), _known(name, revision)
    if folder is None:
        return None
    chosen = choose(files_in(folder) if there is None else there)
    return folder if chosen and all((folder / file).is_file() for file in chosen) else None


def cached_folder(name: str, *, revision: str | None = None) -> Path | None:
    """The folder of a repository in the cache, whatever files it holds by now."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[], local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None


def files_in(folder: Path) -> list[str]:
    """Paths of all files in it, from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def find(name: str, *, revision: str | None = None, file: str | None = None) -> None:
    """Make sure that there is such a repository, and such a file in it: in the cache, or on the hub.

    Raises:
        DownloadError: there is none (`missing`), or it is not in the cache and the hub cannot be asked.
    """
    wanted = gguf_parts(file) if file is not None else ["config.json"]
    if cached(name, lambda _: wanted, revision=revision) is not None:
        return
    with hub_failures(name, revision):
        there = HfApi().model_info(name, revision=revision).siblings or ()
    if file is not None and not any(path.rfilename == file for path in there):
        raise DownloadError(f"{name} has no file {file} on the hub", missing=True)


def size_in_words(size_bytes: float) -> str:
    """Such as `497 MB`; in powers of ten, as the hub and disks have it."""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def _listed(name: str, revision: str | None) -> tuple[str | None, list[str] | None]:
    """Commit and files of the repository as the hub has it now; where it cannot be asked, None and what the cache knows of them."""
    try:
        info = HfApi().model_info(name, revision=revision)
        return info.sha, [file.rfilename for file in info.siblings or ()]
    except RevisionNotFoundError:
        raise
    except Exception:  # noqa: BLE001 - no network in whatever words, or no access any more: a copy in the cache is as good
        pass
    return None, _known(name, revision)


def _known(name: str, revision: str | None) -> list[str] | None:
    """Files of the repository as the last download has seen them; None where no download has noted them."""
    try:
        return [file.path for file in get_cached_repo_tree(name, revision=revision)]
    except CachedRepoTreeNotFoundError:
        return None


def _check_room(name: str, commit: str, wanted: list[str]) -> None:
    planned = snapshot_download(name, revision=commit, allow_patterns=wanted, tqdm_class=_Hidden, dry_run=True)
    need = sum(file.file_size or 0 for file in planned if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if need > free:
        raise DownloadError(
            f"{name} needs {size_in_words(need)} on the disk, and {cache} has {size_in_words(free)} free. "
            "Free some space, or set HF_HOME to a larger disk",
            retryable=True,
        )


class _Hidden(hub_bar):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[arg-type]
