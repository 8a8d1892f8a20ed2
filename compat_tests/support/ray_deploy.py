"""What `serve deploy` does with the application, for a cluster whose dashboard does not run. Run by the Python of the environment `ray`:

python -m compat_tests.support.ray_deploy ADDRESS PORT FOLDER
"""

import sys

import ray  # type: ignore[import-not-found]
from ray import serve  # type: ignore[import-not-found]

from mm_gateway.ray_serve import application


def main(address: str, port: str, folder: str) -> None:
    ray.init(address=address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(application({"models": f"{folder}/models.yaml", "config": f"{folder}/gateway.yaml"}), name="gateway", route_prefix="/")


if __name__ == "__main__":
    main(*sys.argv[1:])
