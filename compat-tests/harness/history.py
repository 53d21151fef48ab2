"""Compares the records of a topic with the acknowledgements that its producers received."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .loads import SETTLE_S

LEADER_CHANGED = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)


def end_offset(reader, place):
    """Returns the high watermark of a partition, whose leader may change meanwhile.

    A returned node gets its preferred leaderships back. librdkafka asks a leader once, and passes
    on NOT_LEADER_FOR_PARTITION.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            return reader.get_watermark_offsets(place, 30)[1]
        except KafkaException as error:
            if error.args[0].code() not in LEADER_CHANGED:
                raise
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def read_all(bootstrap, topic, partitions):
    """Reads a whole topic. Returns {partition: [(offset, number)]}."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    found = {}
    for partition in range(partitions):
        place = TopicPartition(topic, partition, 0)
        end = end_offset(reader, place)
        records = found.setdefault(partition, [])
        if end == 0:
            continue
        reader.assign([place])
        deadline = time.monotonic() + SETTLE_S
        while not records or records[-1][0] < end - 1:
            assert time.monotonic() < deadline, f"{topic}-{partition}: {len(records)} of {end}"
            for message in reader.consume(1000, timeout=0.5):
                assert message.error() is None, message.error()
                records.append((message.offset(), int(message.value())))
    reader.close()
    return found


def check(topic, partitions, found, acknowledged, sent, given_up=0):
    """Checks that every number is there once, in order, and at its acknowledged offset."""
    missing = 0
    for partition, records in found.items():
        offsets = [offset for offset, _ in records]
        assert offsets == list(range(len(records))), f"{topic}-{partition}: offsets have no gap"
        numbers = [number for _, number in records]
        expected = range(partition, sent, partitions)
        assert len(set(numbers)) == len(numbers), f"{topic}-{partition}: doubled"
        assert numbers == sorted(numbers), f"{topic}-{partition}: reordered"
        lost = sorted(set(expected) - set(numbers))
        missing += len(lost)
        assert missing <= given_up, f"{topic}-{partition}: lost {lost[:10]}"
        assert set(numbers) <= set(expected), f"{topic}-{partition}: invented"
    for (partition, offset), number in acknowledged.items():
        at = found[partition]
        assert offset < len(at) and at[offset][1] == number, (
            f"{topic}-{partition}: {number} was acknowledged at {offset}"
        )
