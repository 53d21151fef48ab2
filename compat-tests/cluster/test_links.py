"""Links between nodes are cut in one direction or both. Clients still reach all nodes."""

import pytest


@pytest.fixture
def cluster(networked_cluster):
    return networked_cluster


def roles(cluster):
    """Returns the ids of the controller and the two other nodes."""
    controller = cluster.controller()
    return controller, *sorted(set(cluster.nodes) - {controller})


def after(cluster, work):
    work.through("healed", cluster.network.heal)
    cluster.wait_until_registered()
    cluster.wait_until_in_sync()
    work.end()


def test_a_node_cut_off(cluster, at_work):
    """A node reaches only clients. Its leaders must move, and it must acknowledge nothing."""
    controller, other, third = roles(cluster)

    def cut():
        cluster.network.cut(other, controller)
        cluster.network.cut(other, third)

    work = at_work(cluster)
    work.through("a leader cut off", cut)
    after(cluster, work)


def test_the_controller_cut_off(cluster, at_work):
    controller, other, third = roles(cluster)

    def cut():
        cluster.network.cut(controller, other)
        cluster.network.cut(controller, third)

    work = at_work(cluster)
    work.through("the controller cut off", cut)
    cluster.wait_until(
        "there is a new controller", lambda: cluster.controller_of(other) in (other, third)
    )
    after(cluster, work)


def test_one_link(cluster, at_work):
    """Two brokers do not reach each other. The controller reaches both."""
    _, other, third = roles(cluster)
    work = at_work(cluster)
    work.through("link between two brokers cut", lambda: cluster.network.cut(other, third))
    after(cluster, work)


def test_one_link_of_the_controller(cluster, at_work):
    controller, other, _ = roles(cluster)
    work = at_work(cluster)
    work.through("link to the controller cut", lambda: cluster.network.cut(controller, other))
    after(cluster, work)


@pytest.mark.parametrize("way", ["to", "from"])
def test_one_way(cluster, at_work, way):
    """Packets from the controller to one node are lost, or packets from that node to it."""
    controller, other, _ = roles(cluster)
    ends = (controller, other) if way == "from" else (other, controller)
    work = at_work(cluster)
    work.through(f"one way {way} the controller cut", lambda: cluster.network.cut_one_way(*ends))
    after(cluster, work)


def test_one_way_between_brokers(cluster, at_work):
    _, other, third = roles(cluster)
    work = at_work(cluster)
    work.through(
        "one way between two brokers cut", lambda: cluster.network.cut_one_way(other, third)
    )
    after(cluster, work)
