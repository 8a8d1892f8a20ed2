"""The pytest plugin: stand-ins for imports, only tests that speak to a server, and a line of JSON for each result."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

from compat_tests.others.vllm_suite import stubs

stubs.install()

_results: dict[str, dict[str, str]] = {}


def _names(function: Any) -> set[str]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return set(code.co_names) if code else set()


def _speaks_to_a_server(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    fixtures = [definition.func for found in item._fixtureinfo.name2fixturedefs.values() for definition in found]
    return any("RemoteOpenAIServer" in _names(function) for function in [item.function, *fixtures])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if _speaks_to_a_server(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _name(nodeid: str) -> str:
    return nodeid.removeprefix("tests/")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _results[_name(report.nodeid)] = {"outcome": "error", "message": str(report.longrepr)[-6000:]}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    known = _results.setdefault(_name(report.nodeid), {"outcome": "passed", "message": ""})
    if report.skipped and known["outcome"] == "passed":
        known |= {"outcome": "skipped", "message": str(report.longrepr)}
    elif report.failed:
        known |= {"outcome": "failed" if report.when == "call" else "error", "message": str(report.longrepr)[-6000:]}


def pytest_runtest_logfinish() -> None:
    Path(os.environ["VLLM_SUITE_RESULTS"]).write_text(json.dumps(_results, indent=1))


pytest_sessionfinish = pytest_runtest_logfinish
