"""The places that every store works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_gateway.storage.database import Place


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A file that is not there yet, and a database with nothing in it."""
    return tmp_path / "new folder" / "store.sqlite" if request.param == "sqlite" else request.getfixturevalue("database_url")
