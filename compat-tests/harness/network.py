"""Network namespaces, one per node, on a bridge. Links can be cut, in one direction or both.

Needs root and `ip`. Uses only the subnet of the bridge.
"""

import ipaddress
import os
import shutil
import subprocess

# No interface has this address, so frames to it are lost.
_NOBODY = "02:00:00:00:de:ad"


def is_possible():
    return os.geteuid() == 0 and shutil.which("ip") is not None


def _ip(*words):
    subprocess.run(["ip", *(str(word) for word in words)], check=True, capture_output=True)


class Network:
    """A bridge with all nodes and this process as hosts: clients connect as to other machines."""

    def __init__(self, ids):
        tag = os.getpid() % 10_000
        self._subnet = ipaddress.ip_network(f"10.213.{os.getpid() % 250}.0/24")
        self._bridge = f"sdbr{tag}"
        self._tag = tag
        self._spaces = []
        self._cuts = set()
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{self._subnet[254]}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for node in ids:
                self.add(node)
        except BaseException:
            self.close()
            raise

    def address(self, node):
        return str(self._subnet[node])

    def space(self, node):
        return f"sd{self._tag}-{node}"

    def add(self, node):
        space, outside = self.space(node), f"sdv{self._tag}-{node}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def inside(self, node, command):
        """Returns a command line that runs `command` in the node's namespace, under its own pid."""
        return ["ip", "netns", "exec", self.space(node), *command]

    def cut_one_way(self, source, target):
        """Drops packets from `source` to `target` silently. The other direction stays open."""
        self._cuts.add((source, target))
        _ip("-n", self.space(source), "neigh", "replace", self.address(target),
            "lladdr", _NOBODY, "nud", "permanent", "dev", "eth0")  # fmt: skip

    def cut(self, one, other):
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def heal(self):
        for source, target in self._cuts:
            _ip("-n", self.space(source), "neigh", "del", self.address(target), "dev", "eth0")
        self._cuts.clear()

    def close(self):
        """Removes the namespaces and the bridge. The processes inside must have ended."""
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        self._spaces.clear()
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True)
