"""Brokers that the controller fences, and brokers that it must not fence."""

import time

import pytest
from harness.broker import free_port

BROKER_ONLY = 4


@pytest.fixture
def with_broker_only(new_cluster):
    """Makes a cluster of three nodes with both roles, and a fourth that is a broker only."""

    def start(**settings):
        cluster = new_cluster()
        cluster.add_node(BROKER_ONLY, roles="broker", **settings)
        return cluster.start()

    return start


def replace_controller(cluster):
    """Kills the active controller, and waits for the next one."""
    old = cluster.controller()
    cluster.kill(old)
    new = cluster.wait_until("another controller", lambda: new_controller(cluster, old))
    return old, new


def new_controller(cluster, old):
    seen = {cluster.controller_of(node.id) for node in cluster.running()} - {None, old}
    return seen and min(seen)


def alive(cluster, node_id):
    """Returns the brokers that are not fenced in the metadata of one node."""
    return cluster[node_id].metadata([]).brokers


@pytest.mark.parametrize("after_s", [0, 0.5])
def test_broker_killed_after_a_change_of_controller(with_broker_only, after_s):
    """A new controller detects the death of a broker that has not sent it a heartbeat yet."""
    cluster = with_broker_only()
    _, controller = replace_controller(cluster)
    time.sleep(after_s)
    cluster.kill(BROKER_ONLY)
    killed = time.monotonic()
    cluster.wait_until("4 is fenced", lambda: BROKER_ONLY not in alive(cluster, controller))
    seconds = time.monotonic() - killed
    print(f"fenced after {seconds:.2f} s", flush=True)
    # Without a connection to watch, the session ends after two heartbeat intervals and a second.
    assert seconds < 3.5


def test_broker_whose_listener_refuses_the_controller(with_broker_only):
    """A broker that refuses the controller's connections is alive while its heartbeats arrive."""
    nowhere = f"PLAINTEXT://127.0.0.1:{free_port()}"
    cluster = with_broker_only(advertised_listeners=nowhere)
    old, controller = replace_controller(cluster)
    cluster.wait_until("the dead one is fenced", lambda: old not in alive(cluster, controller))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert BROKER_ONLY in alive(cluster, controller)
        time.sleep(0.01)
