"""Faults of nodes, for loops that draw them from a seed."""

import time

# The names of faults: methods of `Faults`. Those in CUTS need a cluster with a network.
ON_PROCESSES = ["kill", "pause", "restart"]
CUTS = ["cut_off", "cut_one_link", "cut_one_way"]


class Faults:
    """The faults of a node. Each method causes one and ends it after a while."""

    def __init__(self, cluster, rng):
        self._cluster, self._rng = cluster, rng

    def kill(self, victim):
        self._cluster.kill(victim)
        time.sleep(self._rng.choice([0, 3, 14]))
        self._cluster.start(victim)

    def pause(self, victim):
        self._cluster[victim].pause()
        time.sleep(self._rng.choice([0.5, 3, 14]))
        self._cluster[victim].resume()

    def restart(self, victim):
        self._cluster[victim].stop()
        self._cluster.start(victim)

    def cut_off(self, victim):
        for other in set(self._cluster.nodes) - {victim}:
            self._cluster.network.cut(victim, other)
        self._heal_later()

    def cut_one_link(self, victim):
        other = self._rng.choice(sorted(set(self._cluster.nodes) - {victim}))
        self._cluster.network.cut(victim, other)
        self._heal_later()

    def cut_one_way(self, victim):
        other = self._rng.choice(sorted(set(self._cluster.nodes) - {victim}))
        self._cluster.network.cut_one_way(victim, other)
        self._heal_later()

    def _heal_later(self):
        time.sleep(self._rng.choice([0.5, 3, 14]))
        self._cluster.network.heal()
