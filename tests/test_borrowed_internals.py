"""docs/borrowed-internals.md is true: what it lists is used where it says, under the bounds it says, and has a test."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "borrowed-internals.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = {*PROJECT["dependencies"], *(entry for extra in PROJECT["optional-dependencies"].values() for entry in extra)}


@pytest.mark.parametrize(("package", "internals", "file", "guard"), ROWS)
def test_row_is_true(package: str, internals: str, file: str, guard: str) -> None:
    assert package.strip("`") in REQUIREMENTS
    source = (ROOT / file.strip("`")).read_text(encoding="utf-8")
    for internal in re.findall(r"`([^`]+)`", internals):
        assert internal.rpartition(".")[2] in source, f"{internal} is not used in {file} any more"
    for test in re.findall(r"`([^`]+)`", guard):
        assert (ROOT / test).is_file()


def test_private_names_of_torch_and_uvicorn_are_listed() -> None:
    listed = {file.strip("`") for _, _, file, _ in ROWS}
    borrows = re.compile(r"torch\.ops\.|from uvicorn\.protocols|from transformers\.(?:integrations|masking_utils|models)")
    using = {
        str(path.relative_to(ROOT)) for path in (ROOT / "mm_gateway").rglob("*.py") if borrows.search(path.read_text(encoding="utf-8"))
    }
    assert using <= listed
