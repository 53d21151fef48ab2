"""Transaction markers while one partition cannot commit its marker."""

import os
import time

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from harness.broker import KAFKA_KIND
from harness.transactions import DEADLINE_S, last_offset, read, transactional

SETTINGS = {
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "4",
    # How long a marker of a group may wait for followers.
    "offsets.commit.timeout.ms": "1000",
    "min.insync.replicas": "1",
    # A paused follower stays in sync for this long, so its leader commits nothing.
    "broker.session.timeout.ms": "60000",
    "replica.lag.time.max.ms": "60000",
}
TRANSACTIONS = 10
# Far less than request.timeout.ms (30 s), for which the leader waits for its follower.
PROMPT_S = 10


def _write(producer, topic, value):
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(DEADLINE_S)


def _committed(group):
    """Returns the offset of the group, or None if the coordinator does not answer yet."""
    try:
        [committed] = group.committed([TopicPartition("free", 0)], DEADLINE_S)
    except KafkaException:
        return None
    return committed.offset


def test_partition_without_its_follower_holds_up_no_other(kind, new_cluster, tools):
    """Other transactions end at the leader of a partition whose follower is paused. The partition
    and one of __consumer_offsets get their marker once, although the coordinator repeats it."""
    if kind == KAFKA_KIND:
        pytest.skip("Apache Kafka sends the next markers when it has all answers, or after 30 s")
    cluster = new_cluster(**SETTINGS)
    cluster.add_node(4, roles="broker")
    cluster.start()
    run = tools(cluster)
    transactional(cluster.bootstrap, "first")
    group = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "group"})
    cluster.wait_until("the group has a coordinator", lambda: _committed(group) is not None)
    coordinators = [cluster.leader(it) for it in ("__transaction_state", "__consumer_offsets")]
    needed = {*coordinators, cluster.controller()}
    follower = next(node for node in cluster.nodes if node not in needed)
    leader = next(node for node in cluster.nodes if node not in (coordinators[0], follower))
    run(f"kafka-topics --create --topic held --replica-assignment {leader}:{follower}").ok()
    run(f"kafka-topics --create --topic free --replica-assignment {leader}").ok()
    held, free = (transactional(cluster.bootstrap, name) for name in ("held", "free"))
    held.begin_transaction()
    for topic in ("held", "free"):
        held.produce(topic, "held")
    assert held.flush(DEADLINE_S) == 0
    offsets = [TopicPartition("free", 0, 1)]
    held.send_offsets_to_transaction(offsets, group.consumer_group_metadata(), DEADLINE_S)
    _write(free, "free", "before")
    cluster[follower].pause()
    os.waitid(os.P_PID, cluster[follower].process.pid, os.WSTOPPED)
    held.commit_transaction(DEADLINE_S)
    begun = time.monotonic()
    for number in range(TRANSACTIONS):
        _write(free, "free", f"free-{number}")
    took = time.monotonic() - begun
    # The leader gets the marker again, because its first answer is that it timed out.
    time.sleep(2)
    assert last_offset(cluster.bootstrap, "held", 0) == 1, "the marker is not committed"
    cluster[follower].resume()
    for name in ("held", "free"):
        transactional(cluster.bootstrap, name)  # waits until the last transaction is complete
    assert took < PROMPT_S
    for topic in ("held", "__consumer_offsets"):
        assert last_offset(cluster.bootstrap, topic, 1) == 2, f"{topic} has a record and one marker"
    assert _committed(group) == 1
    group.close()
    expected = ["held", "before", *(f"free-{number}" for number in range(TRANSACTIONS))]
    assert read(cluster.bootstrap, "free") == expected
