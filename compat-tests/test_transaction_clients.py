"""Transactions of confluent-kafka (librdkafka), at `transaction.version` 1 and 2.

test_java_clients.py has the same for the Java clients. At version 2 their transactions have epochs
of their own, and the broker adds partitions. librdkafka 2.16 keeps its epoch and adds them itself.
"""

import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.transactions import DEADLINE_S, last_offset, read, transactional, write_pairs


@pytest.fixture
def bootstrap(transactions_broker):
    return transactions_broker.bootstrap


@pytest.fixture
def topic(bootstrap, request):
    """A topic with one partition that only this test uses."""
    name = request.node.originalname.removeprefix("test_")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)
    return name


def begin(bootstrap, topic, values, name=None, **config):
    """Returns a producer with an open transaction of these records."""
    producer = transactional(bootstrap, name or f"{topic}-id", **config)
    add(producer, topic, values)
    return producer


def add(producer, topic, values):
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(DEADLINE_S) == 0


def test_commits_and_aborts_overlap(bootstrap, topic):
    expected = write_pairs(bootstrap, topic)
    assert read(bootstrap, topic) == expected
    assert len(read(bootstrap, topic, "read_uncommitted")) == 2 * len(expected)


def test_open_transaction_is_not_read(bootstrap, topic):
    producer = begin(bootstrap, topic, ["a", "b"])
    assert read(bootstrap, topic) == []
    assert read(bootstrap, topic, "read_uncommitted") == ["a", "b"]
    assert [last_offset(bootstrap, topic, level) for level in (0, 1)] == [2, 0]
    producer.commit_transaction(DEADLINE_S)
    assert read(bootstrap, topic) == ["a", "b"]
    assert [last_offset(bootstrap, topic, level) for level in (0, 1)] == [3, 3]


def test_many_transactions_of_a_producer(bootstrap, topic):
    producer, expected = transactional(bootstrap, f"{topic}-id"), []
    for number in range(20):
        add(producer, topic, [f"{number}-{part}" for part in range(3)])
        if number % 3:
            producer.commit_transaction(DEADLINE_S)
            expected += [f"{number}-{part}" for part in range(3)]
        else:
            producer.abort_transaction(DEADLINE_S)
    assert read(bootstrap, topic) == expected


def test_second_producer_fences_the_first(bootstrap, topic):
    first = begin(bootstrap, topic, ["first"])
    second = begin(bootstrap, topic, ["second"])
    with pytest.raises(KafkaException) as refused:
        first.produce(topic, "late")
        first.commit_transaction(DEADLINE_S)
    assert refused.value.args[0].fatal()
    assert refused.value.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
    second.commit_transaction(DEADLINE_S)
    assert read(bootstrap, topic) == ["second"]


def test_overdue_transaction_is_aborted(bootstrap, topic):
    producer = begin(bootstrap, topic, ["overdue"], **{"transaction.timeout.ms": 1000})
    deadline = time.monotonic() + DEADLINE_S
    # The abort marker ends the transaction.
    while last_offset(bootstrap, topic, 1) < 2:
        assert time.monotonic() < deadline, "the transaction is still open"
        time.sleep(0.1)
    with pytest.raises(KafkaException) as refused:
        producer.commit_transaction(DEADLINE_S)
    assert refused.value.args[0].fatal() or refused.value.args[0].txn_requires_abort()
    assert read(bootstrap, topic) == []


def committed(bootstrap, group, topic):
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        return reader.committed([TopicPartition(topic, 0)], DEADLINE_S)[0].offset
    finally:
        reader.close()


def test_offsets_are_part_of_the_transaction(bootstrap, topic):
    """A member of a group reads, writes, and sends its offsets to the transaction."""
    source = begin(bootstrap, topic, [str(n) for n in range(10)], f"{topic}-source")
    source.commit_transaction(DEADLINE_S)
    config = {
        "bootstrap.servers": bootstrap,
        "group.id": f"{topic}-group",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    member = Consumer(config)
    member.subscribe([topic])
    messages, deadline = [], time.monotonic() + DEADLINE_S
    while len(messages) < 10:
        assert time.monotonic() < deadline, f"{len(messages)} records"
        messages += [it for it in member.consume(10, timeout=0.5) if it.error() is None]
    producer = transactional(bootstrap, f"{topic}-id")
    for end, is_commit in ((4, False), (6, True), (10, True)):
        before = committed(bootstrap, config["group.id"], topic)
        producer.begin_transaction()
        producer.produce(topic, f"up to {end}")
        offsets = [TopicPartition(topic, 0, end)]
        producer.send_offsets_to_transaction(offsets, member.consumer_group_metadata(), DEADLINE_S)
        assert producer.flush(DEADLINE_S) == 0
        if is_commit:
            producer.commit_transaction(DEADLINE_S)
        else:
            producer.abort_transaction(DEADLINE_S)
        after = committed(bootstrap, config["group.id"], topic)
        assert after == (end if is_commit else before)
    member.close()
    assert read(bootstrap, topic)[10:] == ["up to 6", "up to 10"]


def test_member_of_an_old_generation_is_fenced(bootstrap, topic):
    """Offsets of a member that is no longer in the group do not become part of a transaction."""
    begin(bootstrap, topic, ["a"], f"{topic}-source").commit_transaction(DEADLINE_S)
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}-group"})
    member.subscribe([topic])
    deadline = time.monotonic() + DEADLINE_S
    while not member.assignment():
        assert time.monotonic() < deadline, "no assignment"
        member.poll(0.1)
    metadata = member.consumer_group_metadata()
    member.close()
    producer = begin(bootstrap, topic, ["b"])
    with pytest.raises(KafkaException) as refused:
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 1)], metadata, DEADLINE_S)
        producer.commit_transaction(DEADLINE_S)
    assert refused.value.args[0].txn_requires_abort()
    producer.abort_transaction(DEADLINE_S)
    assert committed(bootstrap, f"{topic}-group", topic) < 0
    assert read(bootstrap, topic) == ["a"]


def test_transactions_survive_a_kill(transactions_broker, bootstrap, topic):
    """A transaction goes on after kill -9 and a restart of the broker."""
    producer = begin(bootstrap, topic, ["before"])
    done = begin(bootstrap, topic, ["done"], f"{topic}-done")
    done.commit_transaction(DEADLINE_S)
    transactions_broker.kill()
    transactions_broker.start()
    assert read(bootstrap, topic) == []
    producer.produce(topic, "after")
    producer.commit_transaction(DEADLINE_S)
    add(done, topic, ["aborted"])
    done.abort_transaction(DEADLINE_S)
    assert read(bootstrap, topic) == ["before", "done", "after"]
