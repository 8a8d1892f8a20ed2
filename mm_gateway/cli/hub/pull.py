"""`mm-gateway pull`: a repository of the hub, or one GGUF file of it, into the local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from huggingface_hub.utils import tqdm as hub_bar

from mm_gateway.cli.hub.names import entry_of, repository_of, users_of
from mm_gateway.configuration.hub_names import gguf_models, gguf_parts
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import DownloadError
from mm_gateway.hub.download import download, size_in_words
from mm_gateway.runtime.checkpoints.files import wanted_files, weight_files


def pull(settings: Settings, name: str, revision: str | None) -> None:
    """Download what a name means, and say where it is.

    Raises:
        InvalidRequestError: it means nothing on the hub. DownloadError: it cannot be had.
    """
    repository, file = repository_of(settings, name)
    config = entry_of(settings, name)
    revision = revision or (config.revision if config is not None else None)
    fetched: list[str] = []

    def choose(there: Sequence[str]) -> Sequence[str]:
        code = config is not None and config.trust_remote_code
        fetched[:] = _of_file(repository, file, there) if file is not None else _of_model(repository, code, there)
        return fetched

    folder = download(repository, choose, revision=revision, bar=_Bar)
    files = [folder / path for path in fetched] or [path for path in folder.rglob("*") if path.is_file()]
    size = size_in_words(sum(path.stat().st_size for path in files))
    click.echo(f"{name} is complete: {len(files)} file{'s' if len(files) > 1 else ''}, {size}, in {folder}")
    if config is None and not users_of(settings, repository):
        click.echo(f"To serve it, add an entry with model_name: {repository} to models.yaml, or let requests name it: allow")


def _of_model(repository: str, code: bool, there: Sequence[str]) -> Sequence[str]:
    chosen = wanted_files(there, weights=True, code=code)
    files = gguf_models(there)
    if files and not weight_files(there):
        raise DownloadError(f"{repository} has its weights in GGUF files. Pull one of them: {_spelled(repository, files)}")
    return chosen


def _of_file(repository: str, file: str, there: Sequence[str]) -> Sequence[str]:
    """The file of that name or quantization, all its parts, and the small files that describe the model."""
    files = [file] if file in there else [path for path in gguf_models(there) if _is_quantized_as(path, file)]
    if len(files) != 1:
        said = "several files" if files else "no file"
        others = _spelled(repository, files or gguf_models(there) or there)
        raise DownloadError(f"{repository} has {said} of the name or quantization {file!r}. Pull one of: {others}", missing=True)
    parts = gguf_parts(files[0])
    if missing := [part for part in parts if part not in there]:
        raise DownloadError(f"{repository} has no file {missing[0]}, which is a part of {files[0]}", missing=True)
    return [*wanted_files(there, weights=False, code=False), *parts]


def _is_quantized_as(path: str, quantization: str) -> bool:
    """Whether a name such as `Qwen3-0.6B-Q8_0.gguf` or `q4/model-q8_0-00001-of-00003.gguf` ends with it, as such names do."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path[: -len(".gguf")])
    return re.search(rf"(^|[-._/]){re.escape(quantization)}$", stem, re.IGNORECASE) is not None


def _spelled(repository: str, files: Sequence[str]) -> str:
    shown = [f"{repository}:{path}" for path in files[:20]]
    return ", ".join([*shown, "…"] if len(files) > 20 else shown)


class _Bar(hub_bar):
    """Of the bars that the library draws only the one of the bytes that are on the disk; on a terminal only."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        if kwargs.get("name") != "huggingface_hub.snapshot_download":
            kwargs["disable"] = True
        kwargs |= {"desc": "downloading", "bar_format": "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}B of {total_fmt}B, {rate_fmt}"}
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """The library's words for it are not for people."""
