"""A Ray cluster of several nodes on this machine, each with processes of its own. Run by the Python of the environment `ray`:

    python ray_nodes.py PORT NODES CPUS

Says `ready` when it is up. `remove` on stdin kills the last node, `add` starts one; each is answered. The end of stdin ends everything.
"""

import sys

from ray.cluster_utils import Cluster  # type: ignore[import-not-found]

STORE_BYTES = 100 * 2**20


def main(port: int, nodes: int, cpus: int) -> None:
    node = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"gcs_server_port": port, **node})
    others = [cluster.add_node(**node) for _ in range(nodes - 1)]
    print("ready", flush=True)
    for command in sys.stdin:
        if command.strip() == "remove":
            cluster.remove_node(others.pop(), allow_graceful=False)
        else:
            others.append(cluster.add_node(**node))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
