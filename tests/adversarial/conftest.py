"""Which attacks run, and the table of what they did."""

from __future__ import annotations

import pytest
from _pytest.terminal import TerminalReporter

from tests.adversarial.attack import Attack


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--adversarial"):
        return
    slow = [item for item in items if isinstance(item, pytest.Function) and not _is_quick(item)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def _is_quick(item: pytest.Function) -> bool:
    attack = item.callspec.params.get("attack") if hasattr(item, "callspec") else None
    return not isinstance(attack, Attack) or attack.quick


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "attack"]
    if not rows:
        return
    terminalreporter.section("attacks: the longest wait for /health, without waits for a core, the longest pause of a stream")
    terminalreporter.line(f"{'stall ms':>8} {'own ms':>7} {'pause s':>8} {'time s':>7} {'+ MiB':>7}  attack: statuses")
    for name, statuses, seconds, stall_s, own_s, pause_s, grown_mib in sorted(rows, key=lambda row: -row[3]):
        line = f"{stall_s * 1000:8.0f} {own_s * 1000:7.0f} {pause_s:8.2f} {seconds:7.1f} {grown_mib:7.0f}  {name}: {statuses or 'none'}"
        terminalreporter.line(line)
