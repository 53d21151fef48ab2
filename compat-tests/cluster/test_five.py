"""A cluster of five nodes, with replicas on all of them, of which two may fail at a time."""

import pytest
from at_work import AFTER_A_DEATH_S
from harness.cluster import Cluster
from harness.network import Network, is_possible
from test_soak import inject_faults

from conftest import SETTINGS

# Twice the faults that three nodes survive: five replicas, of which three must have a record.
FIVE = {
    **SETTINGS,
    "default.replication.factor": "5",
    "offsets.topic.replication.factor": "5",
    "min.insync.replicas": "3",
}
IDS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def five(kind, tmp_path_factory):
    """A cluster of five nodes, in network namespaces if possible."""
    network = Network(IDS) if is_possible() else None
    cluster = Cluster(kind, tmp_path_factory.mktemp("five"), len(IDS), network=network, **FIVE)
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def cluster(five):
    five.make_whole()
    yield five
    assert five.panics() == []


@pytest.fixture
def work(cluster, at_work):
    return at_work(cluster, replicas=5, min_isr=3)


def two_with(cluster, is_controller):
    """Returns two nodes: the controller and another one, or two without the controller."""
    controller = cluster.controller()
    others = [node for node in IDS if node != controller]
    return [controller, others[0]] if is_controller else others[:2]


@pytest.mark.parametrize("whom", ["brokers", "the controller"])
def test_two_are_killed(cluster, work, whom):
    pair = two_with(cluster, whom == "the controller")
    work.through(f"kill -9 of two of five, {whom}", lambda: cluster.kill(*pair), AFTER_A_DEATH_S)
    cluster.start(*pair)
    cluster.wait_until_in_sync()
    work.end()


def test_one_after_the_other(cluster, work):
    """Kills each node in turn, the next one before the last one is back."""
    for gone, victim in zip([None, *IDS], IDS, strict=False):
        work.through(f"kill -9 of {victim} of five", lambda v=victim: cluster.kill(v))
        if gone is not None:
            cluster.start(gone)
    cluster.start(IDS[-1])
    cluster.wait_until_in_sync()
    work.end()


@pytest.mark.skipif(not is_possible(), reason="needs root and ip")
def test_two_are_cut_off(cluster, work):
    """Cuts the controller and another node off from the three others, not from each other."""
    pair = two_with(cluster, True)
    rest = [node for node in IDS if node not in pair]

    def cut():
        for one in pair:
            for other in rest:
                cluster.network.cut(one, other)

    work.through("two of five cut off", cut)
    cluster.wait_until("a new controller", lambda: cluster.controller_of(rest[0]) in rest)
    work.through("two of five are back", cluster.network.heal)
    cluster.wait_until_registered()
    cluster.wait_until_in_sync()
    work.end()


def test_two_are_paused(cluster, work):
    pair = two_with(cluster, False)

    def on_both(do):
        return lambda: [do(cluster[node]) for node in pair]

    work.through("SIGSTOP of two of five", on_both(lambda node: node.pause()))
    work.through("SIGCONT of two of five", on_both(lambda node: node.resume()))
    cluster.wait_until_in_sync()
    work.end()


@pytest.mark.long
def test_faults(cluster, at_work):
    """Injects the faults of test_soak.py on five nodes."""
    names = ["kill", "pause", "restart", "cut_off", "cut_one_link", "cut_one_way"]
    inject_faults(cluster, at_work, names if cluster.network else names[:3], replicas=5, min_isr=3)
