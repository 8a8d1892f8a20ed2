"""Reads what strangers wrote in processes apart: a page can be made so that its parser takes minutes, or all memory, or crashes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mm_gateway.errors import PageError
from mm_gateway.search.documents import Document, Reader, read_markdown, read_text
from mm_gateway.worker_process import WorkerBusyError, WorkerError, WorkerProcesses, WorkerTimeoutError

PAGE_TIMEOUT_S = 5.0
"""An honest page of 2 MB takes about a second; who sends others must not keep the processes from them for long."""
FILE_TIMEOUT_S = 120.0
"""For a file of the user's own: a PDF of a thousand pages takes half a minute."""
MEMORY_BYTES = 2 * 2**30

_PROCESSES = WorkerProcesses("reading", 2, memory_bytes=MEMORY_BYTES, preload=("mm_gateway.search.documents", "trafilatura"))


def start_reading() -> None:
    """Start the processes, which import their parsers meanwhile; idempotent."""
    _PROCESSES.start()


async def read_apart(read: Reader, content: bytes, charset: str | None) -> Document:
    """A page's text; cancelling ends the work.

    Raises:
        PageError: as the reader does, or it took too long or too much memory.
    """
    with _failures(PAGE_TIMEOUT_S):
        return await _PROCESSES.run(read, content, charset, timeout_s=PAGE_TIMEOUT_S)


def read_file_apart(read: Reader, content: bytes) -> Document:
    """Likewise for a file, which may take longer; blocks. Plain text is read here: it has no parser to break."""
    if read in (read_markdown, read_text):
        return read(content, None)
    with _failures(FILE_TIMEOUT_S):
        return _PROCESSES.submit(read, content, None, timeout_s=FILE_TIMEOUT_S, wait_s=FILE_TIMEOUT_S).result()


@contextmanager
def _failures(timeout_s: float) -> Iterator[None]:
    try:
        yield
    except WorkerTimeoutError as error:
        raise PageError(f"takes longer than {timeout_s:g} s to read") from error
    except WorkerBusyError as error:
        raise PageError("could not be read in time, because others are being read") from error
    except WorkerError as error:
        raise PageError(f"cannot be read: {error}") from error
