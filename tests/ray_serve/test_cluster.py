"""What is wrong with a cluster is said before anything listens."""

from __future__ import annotations

import importlib.metadata
import socket

import msgspec
import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import RaySettings, Settings
from mm_gateway.errors import ConfigurationError
from mm_gateway.main import cli, run
from mm_gateway.ray_serve import application
from mm_gateway.ray_serve.cluster import check_address, check_installed
from mm_gateway.ray_serve.deployments import catalog_over, check
from mm_gateway.ray_serve.replicas import Replicas

MODELS = {"m": ModelConfig(model_name="m", backend="mock"), "l": ModelConfig(model_name="l")}


def _no_ray(_: str) -> str:
    raise importlib.metadata.PackageNotFoundError


def test_ray_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.metadata, "version", _no_ray)
    with pytest.raises(SystemExit) as exit:
        run(cli, ["serve", "--ray", "local", "--port", "0"])
    assert exit.value.code == 2
    assert "pip install 'mm-gateway[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(("version", "fits"), [("2.60.0", True), ("2.100.1", True), ("2.59.9", False), ("1.13.0", False), ("3.0.0", False)])
def test_versions_of_ray(monkeypatch: pytest.MonkeyPatch, version: str, fits: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    if fits:
        check_installed()
    else:
        with pytest.raises(ConfigurationError, match=version):
            check_installed()


@pytest.mark.parametrize("address", ["", "here", "ray://127.0.0.1:10001", "127.0.0.1:port", "127.0.0.1", "a:b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed are local, auto, and HOST:PORT"):
        check_address(address)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=rf"{address}: nothing listens there.*ray start --head"):
            check_address(address)


def test_what_cannot_be_served_on_ray_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="allow"):
        check(Settings(models=MODELS, allow=("*/*",)))
    with pytest.raises(ConfigurationError, match="min_replicas: got 3"):
        check(Settings(models=MODELS, ray=RaySettings(min_replicas=3)))
    with pytest.raises(ConfigurationError, match=r"num_gpus: got 1\.5"):
        check(Settings(models=MODELS, ray=RaySettings(num_gpus=1.5)))


def test_an_application_takes_the_arguments_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match="unknown argument 'model'; allowed are models, config, version"):
        application({"model": "x"})


async def test_local_and_mock_models_are_asked_of_replicas_and_change_when_they_are_deployed() -> None:
    settings = Settings(models=MODELS)
    catalog = catalog_over(settings, Replicas(may_be_none=False))
    assert [info.backend for info in catalog.infos()][:2] == ["ray", "ray"]
    assert catalog.manager_stats() is None
    remote = ModelConfig(model_name="r", backend="remote", base_url="http://127.0.0.1:9/v1")
    replaced = await catalog.replace(msgspec.structs.replace(settings, models={**MODELS, "r": remote}))
    assert replaced.added == ("r",)
    with pytest.raises(ConfigurationError, match="model m: models on Ray change when they are deployed"):
        await catalog.replace(msgspec.structs.replace(settings, models={"m": ModelConfig(model_name="m", backend="mock", delay_s=1.0)}))
    await catalog.close()
