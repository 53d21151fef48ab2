"""A loop of random faults, drawn from a seed: scripts/test-cluster --long."""

import os
import random
import time
from collections import Counter

import pytest
from harness.programs import CLOSING_LINES

SECONDS = float(os.environ.get("CLUSTER_SECONDS", "600"))
SEED = int(os.environ.get("CLUSTER_SEED", str(time.time_ns() % 1_000_000)))


class Faults:
    """The faults of a node. Each method causes one and ends it after a while."""

    def __init__(self, cluster, rng):
        self._cluster, self._rng = cluster, rng

    def kill(self, victim):
        self._cluster.kill(victim)
        time.sleep(self._rng.uniform(0, 3))
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


def inject_faults(cluster, at_work, names, **of_load):
    """Causes faults for `SECONDS`, sometimes before the cluster has recovered."""
    rng = random.Random(SEED)
    print(f"CLUSTER_SEED={SEED}")
    faults, happened = Faults(cluster, rng), Counter()
    work = at_work(cluster, has_guest=True, **of_load)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        name = rng.choice(names)
        getattr(faults, name)(rng.choice(sorted(cluster.nodes)))
        happened[name] += 1
        if rng.random() < 0.7:
            cluster.wait_until_registered()
            cluster.wait_until_in_sync()
        time.sleep(rng.uniform(0, 2))
    cluster.make_whole()
    CLOSING_LINES.append(f"seed {SEED}: {dict(happened)}, acknowledged {work.end()}")


@pytest.mark.long
def test_kills(cluster, at_work):
    inject_faults(cluster, at_work, ["kill"])


@pytest.mark.long
def test_faults(networked_cluster, at_work):
    names = ["kill", "pause", "restart", "cut_off", "cut_one_link", "cut_one_way"]
    inject_faults(networked_cluster, at_work, names)
