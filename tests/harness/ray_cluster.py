"""A cluster of Ray of N nodes on this machine: `python -m tests.harness.ray_cluster N`.

The head has one CPU; each further node one CPU and one GPU that is not there. It prints the
address, kills a node for each line that it reads, and ends the cluster with its input.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.harness.process import PATIENCE, ROOT

INSTALL = "pip install 'lmtune[ray]'"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else 127.0.0.1 becomes another address
TRIES = 3  # a node that Ray has not started within 30 s, on a busy machine, ends its cluster
STORE = 80 << 20  # bytes; the least that Ray takes is 75 MB


class RayCluster:
    """The cluster as a test sees it."""

    def __init__(self, nodes: int) -> None:
        for tries in reversed(range(TRIES)):
            try:
                self._start(nodes)
                return
            except RuntimeError:
                self.close()
                if not tries:
                    raise

    def _start(self, nodes: int) -> None:
        command = [sys.executable, "-m", "tests.harness.ray_cluster", str(nodes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.address = self._answer()

    def kill_node(self) -> None:
        """Kills a node with all that runs on it; returns when it is gone."""
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        self._answer()

    def close(self) -> None:
        """Ends the cluster."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60 * PATIENCE)
        self._process.stdout.close()

    def _answer(self) -> str:
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:].strip()
        raise RuntimeError(f"the cluster ended with {self._process.wait()}")


def main() -> None:
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108 - Ray's own: it notes its address there
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets' paths must be short
    os.environ["LMTUNE_HOME"] = f"{folder}/home"  # of the workers on its nodes
    one = {
        "num_cpus": 1, "num_gpus": 1, "object_store_memory": STORE, "include_dashboard": False,
        "node_ip_address": "127.0.0.1", "temp_dir": folder,
    }  # fmt: skip
    head = {**one, "num_gpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(wait=False, **one) for _ in range(int(sys.argv[1]) - 1)]
    cluster.wait_for_nodes()
    sys.stdout.write(f"= {cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        sys.stdout.write("= killed\n")
        sys.stdout.flush()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
