"""Network namespaces of Linux: workers on machines of their own, whose cables can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

INSTALL = "apt-get install -y iproute2, and run as root (CAP_NET_ADMIN) on Linux"


class Cable:
    """A namespace with one link to this one; `address` is our end, `enter` the way in."""

    def __init__(self, number: int) -> None:
        self.name = f"lmtune-{os.getpid()}-{number}"
        self._ours = f"lm{os.getpid() % 10**7}-{number}"  # at most 15 characters
        net = f"10.{213 + number}.{os.getpid() % 250}"
        self.address, self._theirs = f"{net}.1", f"{net}.2"
        self.enter = ["ip", "netns", "exec", self.name]

    def lay(self) -> None:
        """Makes the namespace and the link."""
        inside = f"{self._ours}i"[-15:]
        _ip("netns", "add", self.name)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", inside, "netns", self.name)
        _ip("addr", "add", f"{self.address}/30", "dev", self._ours)
        _ip("-n", self.name, "addr", "add", f"{self._theirs}/30", "dev", inside)
        _ip("-n", self.name, "link", "set", inside, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.plug()

    def pull(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told."""
        _ip("link", "set", self._ours, "down")

    def plug(self) -> None:
        """Everything passes."""
        _ip("link", "set", self._ours, "up")

    def remove(self) -> None:
        """Removes the namespace, and the link with it."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._ours], check=False, capture_output=True)


@contextmanager
def cables(count: int) -> Iterator[list[Cable]]:
    """So many namespaces, gone afterwards."""
    made = [Cable(number) for number in range(count)]
    try:
        for cable in made:
            cable.lay()
        yield made
    finally:
        for cable in made:
            cable.remove()


def possible() -> bool:
    """True where this process may make a namespace and a link into it."""
    if shutil.which("ip") is None or os.getuid() != 0:
        return False
    try:
        with cables(1):
            return True
    except subprocess.CalledProcessError:
        return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
