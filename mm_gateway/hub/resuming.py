"""Downloads of large files that go on at the byte where an earlier one was stopped, whether by a signal or by the network.

huggingface_hub takes a connection up where it broke, but writes into a file of the process's own that it deletes at the end, because
locks of some network file systems let two processes write into one (https://github.com/huggingface/huggingface_hub/pull/4228). Here the
unfinished file stays under the name that the library once used, and its hash says at the end whether it is whole. That takes HTTP's
ranges: the hub's other protocol, Xet, writes files out of order.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from huggingface_hub import file_download

logger = logging.getLogger(__name__)

# The entity tag of a large file is its SHA-256, that of others is git's.
_SHA256 = re.compile(r"[0-9a-f]{64}")
_library = file_download._download_to_tmp_and_move


def resume_downloads() -> None:
    """From now on, in this process; more than once changes nothing."""
    file_download._download_to_tmp_and_move = _download


def _download(incomplete_path: Path, destination_path: Path, **given: Any) -> None:
    """In the place of huggingface_hub's own: from a URL to a file of the cache, by one beside it that is named `incomplete_path`."""
    etag, force = given["etag"], given["force_download"]
    if force or etag is None or _SHA256.fullmatch(etag) is None:
        _library(incomplete_path, destination_path, **given)
        return
    if destination_path.exists():
        return
    with incomplete_path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process is at it, or the file system has no locks
            _library(incomplete_path, destination_path, **given)
            return
        if given["expected_size"] is not None and stream.tell() > given["expected_size"]:
            stream.truncate(0)
        _fetch(stream, given)
        stream.flush()
        if _hash(incomplete_path) != etag:
            logger.warning("%s: what was there of it is damaged; it is fetched anew", given["filename"])
            stream.truncate(0)
            _fetch(stream, given)
            stream.flush()
            if _hash(incomplete_path) != etag:
                incomplete_path.unlink(missing_ok=True)
                raise OSError(f"{given['filename']} arrived damaged")
        file_download._chmod_and_move(incomplete_path, destination_path)


def _fetch(stream: Any, given: dict[str, Any]) -> None:
    stream.seek(0, 2)
    file_download.http_get(
        given["url_to_download"],
        stream,
        resume_size=stream.tell(),
        headers=given["headers"],
        expected_size=given["expected_size"],
        tqdm_class=given.get("tqdm_class"),
    )


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
