"""What runs on the cluster: the models as one deployment, and the API as another where it is not in the process that was started."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from mm_gateway.entries import Elsewhere, Fleet
from mm_gateway.errors import ConfigurationError
from mm_gateway.ray_serve.backend import RayBackend
from mm_gateway.ray_serve.placement import Placement, Sight, one_a_node, reserved
from mm_gateway.ray_serve.replica import ModelReplica
from mm_gateway.ray_serve.replicas import Replicas
from mm_gateway.ray_serve.watching import counted

if TYPE_CHECKING:
    from ray.serve import Application  # type: ignore[import-not-found]
    from ray.serve.handle import DeploymentHandle  # type: ignore[import-not-found]

MODELS = "models"
INGRESS = "api"
PREFIX_ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def models(settings: Settings) -> Application:
    """The deployment of the models, for Serve to run.

    Raises:
        ConfigurationError: the settings cannot be served that way.
    """
    from ray import serve  # type: ignore[import-not-found]

    check(settings)
    ray = settings.ray
    wanted = reserved(ray)
    options: dict[str, Any] = {
        "name": MODELS,
        "max_ongoing_requests": ray.max_requests,
        "graceful_shutdown_timeout_s": ray.drain_timeout_s,
        "max_surge_percent": ray.max_surge_percent,
        "ray_actor_options": {"num_cpus": wanted["CPU"], "num_gpus": wanted["GPU"], "memory": wanted["memory"]},
        "logging_config": {"enable_access_log": False},
        "autoscaling_config": {
            "min_replicas": ray.min_replicas,
            "max_replicas": ray.max_replicas,
            "target_ongoing_requests": ray.target_requests,
            "upscale_delay_s": ray.upscale_delay_s,
            "downscale_delay_s": ray.downscale_delay_s,
        },
    }
    if one_a_node(ray):
        options["max_replicas_per_node"] = 1
    if ray.routing == "prefix":
        options["request_router_config"] = {"request_router_class": PREFIX_ROUTER}
    return serve.deployment(**options)(ModelReplica).bind(_of_replicas(settings))


def whole_gateway(settings: Settings) -> Application:
    """Both deployments, the API as the one that Serve's proxies ask."""
    from ray import serve  # type: ignore[import-not-found]

    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=settings.ray.ingress_replicas,
        max_ongoing_requests=2 * settings.limits.max_requests,  # what is too much is refused by the API itself, in its envelope
        graceful_shutdown_timeout_s=settings.ray.drain_timeout_s,
        max_surge_percent=100,  # they take so little that there is always room for both versions
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )(serve.ingress()(Ingress))
    # Files are read where the application is built; changed ones are deployed again.
    return ingress.bind(msgspec.structs.replace(settings, files=None), models(settings))


def catalog_over(settings: Settings, replicas: Replicas) -> Catalog:
    """A catalog whose local and mock models are asked of the replicas."""
    return build_catalog(settings, elsewhere=_OnRay(settings, replicas))


class _OnRay(Elsewhere):
    """The entries that replicas were deployed with."""

    def __init__(self, settings: Settings, replicas: Replicas) -> None:
        self._deployed = settings.models
        self._replicas = replicas
        self._created = int(time.time())

    def backend(self, name: str, config: ModelConfig) -> Backend:
        if self._deployed.get(name) != config:
            raise ConfigurationError(f"model {name}: models on Ray change when they are deployed: restart, or `serve deploy` again")
        return RayBackend(name, config, self._replicas, self._created)

    async def fleet(self) -> Fleet:
        return await self._replicas.fleet()


def check(settings: Settings) -> None:
    """Raises:
    ConfigurationError: the settings cannot be served on Ray.
    """
    if settings.allow:
        raise ConfigurationError("models.yaml: allow: is not served on Ray. Give each model an entry, or serve without --ray")
    least, most = settings.ray.min_replicas, settings.ray.max_replicas
    if least > most:
        raise ConfigurationError(f"gateway.yaml: ray: min_replicas: got {least}, allowed is at most max_replicas, which is {most}")
    if (gpus := settings.ray.num_gpus) > 1 and not gpus.is_integer():
        raise ConfigurationError(f"gateway.yaml: ray: num_gpus: got {gpus:g}, allowed are shares of one GPU and whole numbers")


def _of_replicas(settings: Settings) -> Settings:
    """What replicas need of them; keys of clients are not among it."""
    here = {name: config for name, config in settings.models.items() if config.backend in ("local", "mock")}
    memory, ray = settings.memory, settings.ray
    if ray.memory_bytes is not None and not ray.num_gpus:
        memory = msgspec.structs.replace(memory, budget_bytes=ray.memory_bytes)
    if 0 < ray.num_gpus < 1:
        # Those that share a GPU see all of its memory, and nothing keeps them apart but what each allows itself.
        memory = msgspec.structs.replace(memory, memory_threshold=memory.memory_threshold * ray.num_gpus)
    return Settings(models=here, memory=memory, engine=settings.engine)


class Ingress:
    """The API as a deployment of Serve, which calls it as an ASGI application."""

    def __init__(self, settings: Settings, handle: DeploymentHandle) -> None:
        import ray  # type: ignore[import-not-found]

        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._settings = settings
        self._replicas = Replicas(may_be_none=not settings.ray.min_replicas)
        self._replicas.found(handle, Placement(1), ray.util.get_node_ip_address())  # one until the first look
        self._watch = counted(self._replicas, Sight(handle.app_name, MODELS, settings.ray))

    def __serve_build_asgi_app__(self) -> GatewayApp:
        self._watch.start()
        return create_app(self._settings, catalog_over(self._settings, self._replicas))
