"""What the hub's local cache holds of models, and taking it out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import CachedFileInfo, CachedRepoInfo, DeleteCacheStrategy, HFCacheInfo

from mm_gateway.configuration.hub_names import gguf_models, gguf_parts
from mm_gateway.errors import DownloadError, StorageError
from mm_gateway.hub.download import Choose, cached, cached_folder, files_in


@dataclass(frozen=True)
class CachedModel:
    """A repository in the cache.

    Attributes:
        size_bytes: on the disk, all revisions together. modified_s: Unix time of its newest file. files: of all revisions.
    """

    name: str
    size_bytes: int
    modified_s: float
    files: tuple[str, ...]


def cached_models() -> list[CachedModel]:
    """The models in the cache, by name."""
    scanned = _scan()
    return sorted(map(_model, _repositories(scanned)), key=lambda model: model.name.lower()) if scanned is not None else []


def complete_models(accept: Callable[[str], bool], choose: Choose) -> list[str]:
    """Names of accepted models whose chosen files are all in the cache, and `NAME:FILE` for each GGUF file of accepted models that is
    whole; of one in parts the first.

    Reads folders alone, so it is quick where the cache is large.
    """
    found: list[str] = []
    for path in Path(constants.HF_HUB_CACHE).glob("models--*"):
        name = path.name.removeprefix("models--").replace("--", "/")
        if not accept(name):
            continue
        if cached(name, choose, revision="main") is not None:
            found.append(name)
        folder = cached_folder(name, revision="main")
        files = files_in(folder) if folder is not None else []
        found += [f"{name}:{file}" for file in gguf_models(files) if set(files).issuperset(gguf_parts(file))]
    return sorted(found)


def remove(name: str, file: str | None = None) -> int:
    """Take a model out of the cache, or one of its files with all its parts; the bytes that came free.

    Raises:
        DownloadError: it is not in the cache. StorageError: it cannot be deleted.
    """
    scanned = _scan()
    found = next((repository for repository in _repositories(scanned) if repository.repo_id == name), None) if scanned else None
    if scanned is None or found is None:
        raise DownloadError(f"{name} is not in the cache, {constants.HF_HUB_CACHE}. `mm-gateway list` shows what is", missing=True)
    if file is None:
        plan = scanned.delete_revisions(*(revision.commit_hash for revision in found.revisions))
        return _execute(plan, [found.repo_path])
    files = [cached for path, cached in _files(found) if path in gguf_parts(file)]
    if not files:
        raise DownloadError(f"{name} has no file {file} in the cache. There are {', '.join(_model(found).files)}", missing=True)
    return _execute(scanned.delete_files(*files), [cached.file_path for cached in files])


def _execute(plan: DeleteCacheStrategy, paths: list[Path]) -> int:
    plan.execute()
    # The library logs what it cannot delete.
    left = next((path for path in paths if path.is_symlink() or path.exists()), None)
    if left is not None:
        raise StorageError(f"{left} cannot be deleted. Check that its folder is yours to write")
    return plan.expected_freed_size


def _scan() -> HFCacheInfo | None:
    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None


def _repositories(scanned: HFCacheInfo) -> list[CachedRepoInfo]:
    return [repository for repository in scanned.repos if repository.repo_type == "model" and repository.nb_files]


def _files(repository: CachedRepoInfo) -> list[tuple[str, CachedFileInfo]]:
    """Files of all revisions with their paths in the repository."""
    found = ((revision.snapshot_path, file) for revision in repository.revisions for file in revision.files)
    return [(file.file_path.relative_to(folder).as_posix(), file) for folder, file in found]


def _model(repository: CachedRepoInfo) -> CachedModel:
    files = tuple(sorted({path for path, _ in _files(repository)}))
    return CachedModel(repository.repo_id, repository.size_on_disk, repository.last_modified, files)
