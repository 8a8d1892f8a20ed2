"""Where the library comes from, and what happens where it cannot be compiled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_gateway.runtime.kernels import compiling, library


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The library is found once a process; here it is each time."""
    library._load.cache_clear()
    yield
    library._load.cache_clear()


def test_without_a_compiler_there_is_no_library_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "library_name", lambda: "none.so")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert library.library() is None
        assert library.library() is None
    (record,) = caplog.records
    assert "no C++ compiler is installed (no-such-compiler)" in record.getMessage()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho it is broken\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(compiling.CompilationError, match="it is broken"):
        compiling.compile_library(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_choice_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if library.library() is None:
        pytest.skip("no C++ compiler")
    library._load.cache_clear()
    monkeypatch.setenv(library.CHOICE, "sse9")
    with pytest.raises(ValueError, match="MM_CPU_KERNELS=sse9"):
        library.library()
    monkeypatch.setenv(library.CHOICE, "none")
    assert library.library() is None
