"""Transaction markers while one partition cannot commit its marker."""

import os
import time

import pytest
from harness.broker import KAFKA_KIND
from harness.transactions import DEADLINE_S, last_offset, read, transactional

SETTINGS = {
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
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


def test_partition_without_its_follower_holds_up_no_other(kind, new_cluster, tools):
    """Other transactions end at the leader of a partition whose follower is paused."""
    if kind == KAFKA_KIND:
        pytest.skip("Apache Kafka sends the next markers when it has all answers, or after 30 s")
    cluster = new_cluster(**SETTINGS).start()
    run = tools(cluster)
    transactional(cluster.bootstrap, "first")
    coordinator, controller = cluster.leader("__transaction_state"), cluster.controller()
    follower = next(node for node in (1, 2, 3) if node not in (coordinator, controller))
    leader = next(node for node in (1, 2, 3) if node not in (coordinator, follower))
    run(f"kafka-topics --create --topic held --replica-assignment {leader}:{follower}").ok()
    run(f"kafka-topics --create --topic free --replica-assignment {leader}").ok()
    held, free = (transactional(cluster.bootstrap, name) for name in ("held", "free"))
    held.begin_transaction()
    for topic in ("held", "free"):
        held.produce(topic, "held")
    assert held.flush(DEADLINE_S) == 0
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
    assert last_offset(cluster.bootstrap, "held", 1) == 2, "a record and one marker"
    expected = ["held", "before", *(f"free-{number}" for number in range(TRANSACTIONS))]
    assert read(cluster.bootstrap, "free") == expected
