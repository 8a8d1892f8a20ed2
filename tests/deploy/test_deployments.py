"""What deploys the gateway names files, probes, options and settings that it has."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/mm-gateway"
PATHS = {path for _, path in ENDPOINTS}
HELM = shutil.which("helm", path=f"{ROOT / 'build'}:") or shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="there is no helm; `make helm` fetches one")


def test_the_unit_is_read_and_waits_long_enough() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "mm-gateway.service")
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["TimeoutStopSec"]) > ServerSettings().shutdown_grace_s + 20
    wanted = 2 * LimitSettings().max_requests + LimitSettings().max_waiting_connections + 1024
    assert int(service["LimitNOFILE"]) > wanted
    options = re.findall(r"--(\w+)", service["ExecStart"])
    assert options == ["models", "config"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "mm-gateway.service"
    unit.write_text((DEPLOY / "mm-gateway.service").read_text().replace("/opt/mm-gateway/bin/mm-gateway", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0 and "mm-gateway.service" not in done.stderr, done.stderr


def test_compose_mounts_what_is_there_and_asks_for_what_is_served() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] if not source.startswith(".") else (DEPLOY / source).exists(), volume
    gateway = compose["services"]["gateway"]
    [probe] = re.findall(r"127\.0\.0\.1:8000(/[\w/]+)", " ".join(gateway["healthcheck"]["test"]))
    assert probe in PATHS
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == ["gateway:8000"]
    environment = {name: "x" for name in gateway["environment"]} | {"MM_GATEWAY_SERVER_REQUEST_LOG": "json", "MM_GATEWAY_STORAGE_URL": ""}
    load_settings(None, None, environment)  # every variable is a setting


def rendered(*options: str) -> dict[str, Any]:
    """What the chart makes, by kind."""
    done = subprocess.run([str(HELM), "template", "x", str(CHART), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {found["kind"]: found for found in yaml.safe_load_all(done.stdout) if found is not None}


@needs_helm
def test_the_chart_passes_helms_lint() -> None:
    done = subprocess.run([str(HELM), "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@needs_helm
def test_the_chart_makes_a_deployment_that_the_gateway_understands(tmp_path: Path) -> None:
    made = rendered()
    assert set(made) == {"ConfigMap", "Deployment", "PersistentVolumeClaim", "Service"}
    pod = made["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in PATHS
    assert made["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert made["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    for name, text in made["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    settings = load_settings(
        tmp_path / "models.yaml", tmp_path / "gateway.yaml", {entry["name"]: entry["value"] for entry in container["env"]}
    )
    grace_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) + settings.server.shutdown_grace_s
    assert grace_s < pod["spec"]["terminationGracePeriodSeconds"]
    # Kubernetes would name the port of a service mm-gateway in a variable that the gateway reads.
    assert pod["spec"]["enableServiceLinks"] is False


@needs_helm
def test_the_chart_has_what_is_asked_for() -> None:
    ingress = json.dumps({"enabled": True, "hosts": ["a.example", "b.example"], "className": "nginx"})
    made = rendered(
        *("--set-json", f"ingress={ingress}"),
        *("--set", "serviceMonitor.enabled=true,existingSecret=keys,persistence.enabled=false,resources.limits.nvidia\\.com/gpu=1"),
    )
    assert [rule["host"] for rule in made["Ingress"]["spec"]["rules"]] == ["a.example", "b.example"]
    [endpoint] = made["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["path"] in PATHS and endpoint["authorization"]["credentials"] == {"name": "keys", "key": "MM_GATEWAY_METRICS_KEY"}
    [container] = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}] and container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "PersistentVolumeClaim" not in made


@needs_helm
def test_the_chart_refuses_values_that_nothing_reads() -> None:
    done = subprocess.run([str(HELM), "template", "x", str(CHART), "--set", "persistance.enabled=false"], capture_output=True, text=True)
    assert done.returncode != 0 and "persistance" in done.stderr
