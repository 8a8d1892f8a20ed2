"""The dashboard and the alerts ask for metrics, and labels of them, that a gateway has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
METRIC = re.compile(r"\b(?:vllm:|mm_gateway_|process_)[a-zA-Z0-9_:]+|\bup\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
LABELS = {"instance", "job", "le", "model_name", "endpoint", "status", "code", "finished_reason", "reason", "source", "state", "device"}


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]
    for group in ALERTS["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.fixture(scope="module")
async def names() -> set[str]:
    """Of every series that a gateway may show, whether or not it has a sample yet."""
    settings = Settings(models={"tiny": ModelConfig(model_name="tiny", path="/nowhere")})
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        text = (await client.get("/metrics")).text
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {"up"} | {name.removesuffix("_total") + suffix for name, kind in types for suffix in SUFFIXES.get(kind, ("",))}


async def test_every_metric_that_is_asked_for_exists(names: set[str]) -> None:
    asked = [(query, METRIC.findall(query)) for query in queries()]
    assert len(asked) > 60 and not [query for query, found in asked if not found]
    assert {name for _, found in asked for name in found} - names == set()


def test_every_label_that_is_asked_for_exists() -> None:
    for query in queries():
        by = [label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in group.split(",")]
        chosen = re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)
        assert {*by, *chosen} <= LABELS, query


def test_legends_and_summaries_name_labels_that_their_query_keeps() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.search(r"\bby \(([^)]*)\)", target["expr"])
            assert kept is None or shown <= {label.strip() for label in kept.group(1).split(",")}, target
    for rule in ALERTS["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus has it)")
def test_prometheus_reads_the_rules_and_the_queries(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": re.sub(r"\$__rate_interval", "5m", query)} for n, query in enumerate(queries())]
    groups = {"groups": [{"name": "queries", "rules": [rule for rule in rules if not rule["expr"].startswith("label_values")]}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(groups))
    for file in (DEPLOY / "alerts.yml", tmp_path / "queries.yml"):
        done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
