"""This process's connection to a cluster: checked before anything is served, and made anew when the cluster was lost."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import signal
import threading

from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError
from mm_gateway.ray_serve.deployments import MODELS, catalog_over, models
from mm_gateway.ray_serve.placement import Sight
from mm_gateway.ray_serve.replicas import Replicas
from mm_gateway.ray_serve.watching import ClusterSight, Watch, answers, counted

APPLICATION = "mm-gateway"
OLDEST = (2, 60)
LOCAL = "local"
LOCAL_STORE_BYTES = 128 * 2**20
"""Ray's store of objects in a cluster of our own. What a reply is sent in is small."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else whatever still uses a handle of a lost cluster connects to a new one by itself, and waits for it for ever.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # After so many seconds without the cluster Ray ends the process; its own 60 may pass before a busy machine has seen the loss.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


_SERVE_LOG = logging.getLogger("ray.serve")


class Cluster:
    """The models of the settings, deployed to a cluster by this process and removed when it ends.

    Args:
        address: `local`: a cluster of this process's own; `auto`: the one that this machine belongs to; else HOST:PORT of its
            control service, and this machine is one of its nodes.

    Attributes:
        replicas: for the backends.
    """

    def __init__(self, settings: Settings, address: str) -> None:
        self._settings = settings
        self._address = address
        self.replicas = Replicas(may_be_none=not settings.ray.min_replicas)
        self._sight = Sight(APPLICATION, MODELS, settings.ray)
        self._watches: list[Watch] = []

    def connect(self) -> None:
        """Connect and deploy; returns when the models can be asked, or wait for a place in the cluster.

        Raises:
            ConfigurationError: Ray is not installed, or too old; the cluster is not there, or cannot run the models.
        """
        check_installed()
        os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
        if self._address != LOCAL:
            check_address(self._address)
        import ray  # type: ignore[import-not-found]
        from ray.exceptions import RayError  # type: ignore[import-not-found]
        from ray.serve.exceptions import RayServeException  # type: ignore[import-not-found]

        try:
            self._join()
        except (RayError, RayServeException, OSError, RuntimeError, ValueError) as error:
            self._leave()
            raise ConfigurationError(f"--ray {self._address}: {_in_one_line(error)}. {_advice(self._address)}") from error

        control = ray.get_runtime_context().gcs_address
        sight = ClusterSight(self.replicas, control, self._lose, self._join_again)
        # A thread each: counting asks Ray, which may take its time when the cluster is going.
        self._watches = [counted(self.replicas, self._sight), Watch("ray-cluster", sight.look)]
        for watch in self._watches:
            watch.start()

    def catalog(self) -> Catalog:
        """The settings' models, those on the cluster asked there."""
        return catalog_over(self._settings, self.replicas)

    def close(self) -> None:
        """Take the models off the cluster and disconnect."""
        from ray import serve  # type: ignore[import-not-found]

        for watch in self._watches:
            watch.stop()
        if self._address != LOCAL and self.replicas.running:
            serve.delete(APPLICATION)
        self._leave()

    def _join(self) -> None:
        import ray  # type: ignore[import-not-found]
        from ray import serve  # type: ignore[import-not-found]

        if self._address == LOCAL:
            ray.init(
                address=LOCAL,
                include_dashboard=False,
                object_store_memory=LOCAL_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        else:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        _SERVE_LOG.setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(models(self._settings), name=APPLICATION, route_prefix=None)
        [handle] = serve.run_many([target], wait_for_applications_running=False)
        self.replicas.found(handle, self._sight.started(), ray.util.get_node_ip_address())

    def _lose(self) -> None:
        self._leave()
        self.replicas.on_loop(_take_signals_back)

    def _join_again(self) -> None:
        self._join()
        self.replicas.on_loop(_take_signals_back)

    def _leave(self) -> None:
        import ray  # type: ignore[import-not-found]

        _SERVE_LOG.setLevel(logging.CRITICAL)  # threads of Serve's client complain that they are left behind
        ray.shutdown()


def _take_signals_back() -> None:
    """Ray's library takes SIGTERM behind Python's back, for a last word to its log; only the main thread can undo it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.getsignal(number))


def check_installed() -> None:
    """Raises:
    ConfigurationError: Ray is missing or too old.
    """
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError("--ray: Ray is not installed. pip install 'mm-gateway[ray]'") from None
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST or numbers[0] != OLDEST[0]:
        wanted = ".".join(map(str, OLDEST))
        raise ConfigurationError(f"--ray: Ray {version} is installed, {wanted} or a later 2.x is needed. pip install 'mm-gateway[ray]'")


def check_address(address: str) -> None:
    """Raises:
    ConfigurationError: it is no address of a cluster, or nothing listens there.
    """
    if address == "auto":
        return
    if not re.fullmatch(r"(\[[^\]]+\]|[^:/\[\]]+):\d{1,5}", address):
        allowed = "local, auto, and HOST:PORT of a cluster that this machine belongs to"
        raise ConfigurationError(f"--ray: got {address!r}, allowed are {allowed}")
    if not answers(address):
        raise ConfigurationError(f"--ray {address}: nothing listens there. {_advice(address)}")


def _advice(address: str) -> str:
    if address == LOCAL:
        return "Is there enough memory, and room in /tmp?"
    return "Start a cluster with `ray start --head`, join it from this machine with `ray start --address HOST:PORT`, or use --ray local"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(".") or type(error).__name__
