"""Replicas are spread over racks, and a consumer reads from the replica in its rack."""

import json
import time

import pytest
from confluent_kafka import Consumer, Producer


def test_replicas_are_spread_over_racks(new_cluster, tools):
    """With four nodes in two racks, two replicas of a partition are in different racks."""
    cluster = new_cluster(count=3)
    cluster.add_node(4, roles="broker")
    for node in cluster.nodes.values():
        node.settings["broker.rack"] = "odd" if node.id % 2 else "even"
    cluster.start()
    run = tools(cluster)
    run("kafka-topics --create --topic spread --partitions 12 --replication-factor 2").ok()
    cluster.leader("spread", 11)
    placed = cluster.metadata(["spread"]).topics["spread"]
    assert {sum(p.replicas) % 2 for p in placed.values()} == {1}, placed


def test_leaders_are_spread(cluster, run, topic):
    run(f"kafka-topics --create --topic {topic} --partitions 9").ok()
    cluster.leader(topic, 8)
    leaders = [p.leader for p in cluster.metadata([topic]).topics[topic].values()]
    assert {leaders.count(node) for node in (1, 2, 3)} == {3}, leaders


@pytest.mark.parametrize("rack", ["rack-1", "rack-3", "nowhere"])
def test_a_consumer_reads_from_its_rack(cluster, run, topic, rack):
    """A consumer reads from the replica in its rack. The leader is node 2."""
    topic = topic.replace("_", "-")
    run(f"kafka-topics --create --topic {topic} --replica-assignment 2:1:3").ok()
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    statistics = []
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": topic,
            "client.rack": rack,
            "auto.offset.reset": "earliest",
            "statistics.interval.ms": 200,
            "log_level": 0,
            "stats_cb": lambda text: statistics.append(json.loads(text)),
        }
    )
    consumer.subscribe([topic])
    expected = int(rack[-1]) if rack != "nowhere" else 2

    def read_from():
        found = statistics[-1]["topics"].get(topic, {}) if statistics else {}
        partition = found.get("partitions", {}).get("0", {})
        return partition.get("broker"), partition.get("leader")

    deadline = time.monotonic() + 60
    sent = received = 0
    # It fetches from the leader first, which redirects it to the replica in its rack.
    while received < 500 or read_from() != (expected, 2):
        assert time.monotonic() < deadline, f"{received} read, from {read_from()}"
        producer.produce(topic, str(sent))
        sent += 1
        producer.poll(0.01)
        message = consumer.poll(0.05)
        if message is not None:
            assert message.error() is None and message.value() == str(received).encode()
            received += 1
    if rack != "nowhere":
        # Without the replica in its rack, it continues at the leader.
        cluster.kill(expected)
        more = received + 200
        while received < more:
            assert time.monotonic() < deadline, f"{received} of {more} read after the kill"
            producer.produce(topic, str(sent))
            sent += 1
            producer.poll(0.01)
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                assert message.value() == str(received).encode()
                received += 1
    consumer.close()
