"""Names of repositories on the hub and of files in them: what one looks like, and which of them patterns allow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta

MAX_PART = 96
MAX_FILE = 255
# As huggingface_hub.utils.validate_repo_id has it, whose import takes longer than a small command.
_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
# As llama.cpp's gguf-split names the parts of a file.
_PART_OF_SEVERAL = re.compile(r"-(\d{5})-of-(\d{5})(\.gguf)$", re.ASCII | re.IGNORECASE)


HubPattern = Annotated[
    str,
    Meta(
        pattern=r"^(?!.*\.\.)[A-Za-z0-9_.*?-]+(/[A-Za-z0-9_.*?-]+)?$",
        title="ORGANISATION/NAME, in which * and ? stand for other characters",
    ),
]


def is_repository(name: str) -> bool:
    """Whether a name could be one of a repository: NAME or ORGANISATION/NAME."""
    parts = name.split("/")
    sound = len(parts) <= 2 and all(len(part) <= MAX_PART and _PART.fullmatch(part) for part in parts)
    return sound and "--" not in name and ".." not in name and not name.endswith(".git")


def split_file(name: str) -> tuple[str, str | None]:
    """`ORGANISATION/NAME:FILE` as the repository and the file; None where no file is named."""
    repository, colon, file = name.partition(":")
    return repository, file if colon else None


def has_gguf_ending(file: str) -> bool:
    """Whether a file's name ends as those of GGUF files do, in capitals too."""
    return file.lower().endswith(".gguf")


def is_gguf_file(file: str) -> bool:
    """Whether a path could be one of a GGUF file in a repository."""
    return has_gguf_ending(file) and len(file) <= MAX_FILE and all(_PART.fullmatch(part) and ".." not in part for part in file.split("/"))


def gguf_parts(file: str) -> list[str]:
    """All parts of the GGUF file that a file is one of by its name, such as `m-00001-of-00003.gguf`; it alone where it is no part."""
    found = _PART_OF_SEVERAL.search(file)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        return [file]
    return [f"{file[: found.start()]}-{number:05d}-of-{found[2]}{found[3]}" for number in range(1, int(found[2]) + 1)]


def gguf_models(files: Sequence[str]) -> list[str]:
    """The GGUF files among a repository's or a folder's that stand for a model each: whole ones, and the first of several parts.

    What reads images for a model beside it (`mmproj`, as llama.cpp names it) is none.
    """
    return [file for file in files if has_gguf_ending(file) and file == gguf_parts(file)[0] and "mmproj" not in file.lower()]


def is_allowed(name: str, patterns: Sequence[str]) -> bool:
    """Whether a repository's name fits one of the patterns; `*` and `?` stand for characters other than the slash."""
    return is_repository(name) and any(
        name.count("/") == pattern.count("/") and all(map(fnmatchcase, name.split("/"), pattern.split("/"))) for pattern in patterns
    )
