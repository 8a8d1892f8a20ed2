"""`mm-gateway index` as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nApples are red.")
    (folder / "b.txt").write_text("Bananas are yellow.")
    return folder


def index(tmp_path: Path, *arguments: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    (tmp_path / "gateway.yaml").write_text(f"storage: {{folder: {tmp_path / 'data'}}}\n{settings}")
    command = [sys.executable, "-m", "mm_gateway.main", "index", "--config", str(tmp_path / "gateway.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, timeout=60)


def test_builds_updates_lists_and_rebuilds(tmp_path: Path, folder: Path) -> None:
    assert "Nothing is indexed" in index(tmp_path, "--list").stdout
    built = index(tmp_path, str(folder))
    assert built.returncode == 0
    assert built.stdout.startswith("2 added, 0 updated, 0 unchanged, 0 removed, 0 failed\n2 documents in 2 passages")
    (folder / "b.txt").unlink()
    assert index(tmp_path).stdout.startswith("0 added, 0 updated, 1 unchanged, 1 removed")
    assert str(folder) in index(tmp_path, "--list").stdout
    assert index(tmp_path, "--rebuild").stdout.startswith("1 added, 0 updated, 0 unchanged")


def test_files_that_cannot_be_read_are_named_and_make_the_exit_code(tmp_path: Path, folder: Path) -> None:
    (folder / "c.pdf").write_bytes(b"%PDF-1.4 broken")
    done = index(tmp_path, str(folder))
    assert done.returncode == 1
    assert f"{folder / 'c.pdf'}: is no PDF" in done.stderr
    assert "2 added" in done.stdout and "1 failed" in done.stdout


def test_without_paths_the_settings_say_what_to_index(tmp_path: Path, folder: Path) -> None:
    assert index(tmp_path).returncode == 2
    assert index(tmp_path, settings=f"search: {{index_paths: [{folder}]}}").stdout.startswith("2 added")
    missing = index(tmp_path, str(tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert "there is no file or folder" in missing.stderr
