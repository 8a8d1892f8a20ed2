"""A Ray cluster of several nodes on this machine, each with processes of its own. Run by the Python of the environment `ray`:

    python ray_nodes.py PORT NODES DASHBOARD

NODES: what each has, as JSON: a list of what `Cluster.add_node` takes. DASHBOARD: port of what `serve deploy` asks; 0: there is none.
Says `ready` when it is up. `remove` on stdin kills the last node, `add` starts one more like it; each is answered. The end of stdin ends
everything.
"""

import json
import sys

from ray.cluster_utils import Cluster  # type: ignore[import-not-found]

STORE_BYTES = 100 * 2**20


def main(port: str, nodes: str, dashboard: str) -> None:
    head, *more = ({"object_store_memory": STORE_BYTES, "include_dashboard": False, **node} for node in json.loads(nodes))
    if int(dashboard):
        head |= {"include_dashboard": True, "dashboard_port": int(dashboard)}
    cluster = Cluster(initialize_head=True, head_node_args={"gcs_server_port": int(port), **head})
    others = [cluster.add_node(**node) for node in more]
    last = {**head, **(more[-1] if more else {}), "include_dashboard": False}
    print("ready", flush=True)
    for command in sys.stdin:
        if command.strip() == "remove":
            cluster.remove_node(others.pop(), allow_graceful=False)
        else:
            others.append(cluster.add_node(**last))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
