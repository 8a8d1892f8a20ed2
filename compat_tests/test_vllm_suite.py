"""The runner of vLLM's own tests: what it reports, and which archives it takes."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from compat_tests.others.vllm_suite.__main__ import report, unpack

EXPECTED: dict[str, Any] = {
    "reasons": {},
    "reviewed": {
        "only-vllm": {
            "a.py::test_one[x]": "x",
            "a.py::test_two": "all parameters",
            "b.py::*": "a whole file",
            "c.py::test_gone": "not run",
        },
        "chance": {"a.py::test_dice": "a throw"},
    },
}
FAILING = {name: "failed" for name in ("a.py::test_one[x]", "a.py::test_two[1]", "a.py::test_two[2]", "b.py::test_any", "a.py::test_dice")}


@pytest.mark.parametrize(
    ("change", "unexpected"),
    [
        ({}, ""),
        ({"a.py::test_one[y]": "passed", "a.py::test_new": "passed", "a.py::test_dice": "passed"}, ""),
        ({"a.py::test_one[y]": "failed"}, "a.py::test_one[y]: failed"),
        ({"a.py::test_one[x]": "passed"}, "a.py::test_one[x]: passes, though"),
        ({"a.py::test_two[2]": "passed"}, "a.py::test_two[2]: passes, though"),
        ({"b.py::test_other": "passed"}, "b.py::test_other: passes, though"),
        ({"c.py::test_renamed": "passed"}, "c.py::test_gone: expected.yaml lists it under only-vllm, and there is no such test"),
    ],
)
def test_what_the_list_does_not_say_is_reported(change: dict[str, str], unexpected: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = {name: {"outcome": outcome, "message": ""} for name, outcome in (FAILING | change).items()}
    assert report(results, EXPECTED, whole=True) == (1 if unexpected else 0)
    assert unexpected in capsys.readouterr().out


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_of_another_version_is_refused(tmp_path: Path, packed: bool) -> None:
    source = tmp_path / "vllm-1.0"
    for name in ("tests/entrypoints", "tests/tool_use", "tests/models", "examples"):
        (source / name).mkdir(parents=True)
    for name in ("tests/__init__.py", "tests/ci_envs.py", "tests/utils.py", "examples/a.jinja"):
        (source / name).write_text("theirs")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: vllm\nVersion: 1.0\n\nVersion: 2.0\n")
    archive = source
    if packed:
        archive = tmp_path / "vllm-1.0.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(source, "vllm-1.0")
    with pytest.raises(SystemExit, match=r"This is vLLM 1\.0; expected\.yaml was written for 1\.1"):
        unpack(archive, tmp_path / "other", "1.1")
    unpack(archive, tmp_path / "own", "1.0")
    assert (tmp_path / "own" / "examples" / "a.jinja").read_text() == "theirs"
    assert "harness" in (tmp_path / "own" / "tests" / "utils.py").read_text()
