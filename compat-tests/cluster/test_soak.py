"""A loop of random faults, drawn from a seed: scripts/test-cluster --long."""

import os
import random
import time
from collections import Counter

import pytest
from faults import CUTS, ON_PROCESSES, Faults
from harness.programs import CLOSING_LINES

SECONDS = float(os.environ.get("CLUSTER_SECONDS", "600"))
SEED = int(os.environ.get("CLUSTER_SEED", str(time.time_ns() % 1_000_000)))


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
    inject_faults(networked_cluster, at_work, ON_PROCESSES + CUTS)
