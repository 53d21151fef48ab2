"""Live groups of the consumer protocol (KIP-848) while their coordinator dies, stops and moves."""

import pytest
from harness.members import create_topic, grow


@pytest.fixture
def group(cluster, live_group, topic):
    """A stable group of two librdkafka consumers and a Java consumer, with two partitions each."""
    # The coordinator is elected again after its return only if it is preferred.
    cluster.elect_preferred()
    create_topic(cluster, topic, 6)
    group = live_group(topic)
    group.join([topic], 2)
    group.join_java(topic)
    group.settle([topic])
    group.work()
    return group


def go_on(group, coordinator):
    """Checks that the members work with this coordinator without a rebalance."""
    group.wait_until_coordinated_by(coordinator)
    group.work()
    group.check_undisturbed()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_members_go_on_with_another_coordinator(cluster, group, end):
    """The first coordinator ends, and coordinates again after its return."""
    first = group.coordinator()
    getattr(cluster[first], end)()
    cluster.wait_until("another coordinates", lambda: group.coordinator() not in (None, first))
    go_on(group, group.coordinator())
    cluster.start(first)
    cluster.wait_until_in_sync()
    cluster.elect_preferred()
    go_on(group, first)


def test_members_go_on_through_a_rolling_restart(cluster, group):
    for node in cluster.nodes:
        cluster.restart(node)
        group.work()
        group.check_undisturbed()


def test_members_go_on_after_all_nodes_died(cluster, group):
    cluster.kill(*cluster.nodes)
    cluster.start()
    cluster.wait_until_in_sync()
    group.work()
    group.check_undisturbed()


def test_topic_changes_reach_members_of_another_coordinator(cluster, live_group, topic):
    """Topics that match a regular expression, and new partitions, while the coordinator changes."""
    cluster.elect_preferred()
    topics = [create_topic(cluster, f"{topic}-0", 3)]
    group = live_group(topic)
    group.join([f"^{topic}-[0-9]"], 2)
    group.settle(topics)
    first = group.coordinator()

    def change():
        grow(cluster, topics[0], 3 + len(topics))
        topics.append(create_topic(cluster, f"{topic}-{len(topics)}", 3))
        group.settle(topics)
        group.work()

    cluster.kill(first)
    # Until then, an admin client may wait for the killed node.
    cluster.wait_until_registered()
    change()
    assert group.coordinator() != first
    cluster.start(first)
    cluster.wait_until_in_sync()
    cluster.elect_preferred()
    group.wait_until_coordinated_by(first)
    change()
    go_on(group, first)
