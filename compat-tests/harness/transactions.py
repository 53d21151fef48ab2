"""Writes transactions with a stock producer, and fetches their records."""

import io
import socket
import struct
import time

from confluent_kafka import Consumer, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

DEADLINE_S = 60
FETCH, FETCH_VERSION = 1, 11


def transactional(bootstrap, name, **config):
    settings = {"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 0, **config}
    producer = Producer(settings)
    producer.init_transactions(DEADLINE_S)
    return producer


def write_pairs(bootstrap, topic, pairs=3, records=10, size=1):
    """Writes pairs of overlapping transactions and aborts one of each. Returns committed values."""
    committed = transactional(bootstrap, f"{topic}-committed")
    aborted = transactional(bootstrap, f"{topic}-aborted")
    expected = []
    for pair in range(pairs):
        committed.begin_transaction()
        aborted.begin_transaction()
        for number in range(records):
            for producer, name in ((committed, "committed"), (aborted, "aborted")):
                producer.produce(topic, f"{name}-{pair}-{number}".ljust(size, "."))
                assert producer.flush(DEADLINE_S) == 0
            expected.append(f"committed-{pair}-{number}".ljust(size, "."))
        # The aborted transaction ends first and last in turns.
        ends = [aborted.abort_transaction, committed.commit_transaction]
        for end in ends if pair % 2 else reversed(ends):
            end(DEADLINE_S)
    return expected


def leave_open(bootstrap, topic, records=10):
    """Returns a producer with an open transaction that has records."""
    producer = transactional(bootstrap, f"{topic}-open", **{"transaction.timeout.ms": 900000})
    producer.begin_transaction()
    for number in range(records):
        producer.produce(topic, f"open-{number}")
    assert producer.flush(DEADLINE_S) == 0
    return producer


def last_offset(bootstrap, topic, isolation):
    """Returns the end offset of partition 0, or its last stable offset with isolation 1."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    place = TopicPartition(topic, 0)
    asked = {place: OffsetSpec.latest()}
    found = admin.list_offsets(asked, isolation_level=IsolationLevel(isolation))
    return found[place].result(DEADLINE_S).offset


def read(bootstrap, topic, isolation="read_committed"):
    """Returns all values that a consumer reads with this isolation level."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "check.crcs": True,
        }
    )
    reader.assign([TopicPartition(topic, 0, 0)])
    values, deadline = [], time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < deadline:
            for message in reader.consume(1000, timeout=0.5):
                if message.error() is None:
                    values.append(message.value().decode())
                elif message.error().name() == "_PARTITION_EOF":
                    return values
        raise AssertionError(f"no end after {len(values)} records")
    finally:
        reader.close()


class Fetched:
    """One partition of a Fetch response."""

    def __init__(self, reply):
        def take(layout):
            return struct.unpack(f">{layout}", reply.read(struct.calcsize(f">{layout}")))

        _, self.error, _, topics = take("ihii")
        assert topics == 1, topics
        reply.read(take("h")[0])
        _, _, self.error = take("iih")
        self.high_watermark, self.last_stable, self.log_start, aborted = take("qqqi")
        self.aborted = [take("qq") for _ in range(aborted)] if aborted >= 0 else None
        self.preferred, size = take("ii")
        self.records = reply.read(max(size, 0))

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return str({**vars(self), "records": len(self.records)})


def fetch(broker, topic, offset, max_bytes=1 << 20, isolation=1, partition=0):
    """Sends one Fetch as a consumer. Returns the partition of the response."""
    name = topic.encode()
    body = struct.pack(">hhih", FETCH, FETCH_VERSION, 7, -1)
    body += struct.pack(">iiiibii", -1, 0, 1, 1 << 24, isolation, 0, -1)
    body += struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, max_bytes) + struct.pack(">ih", 0, 0)
    with socket.create_connection(broker.address, timeout=DEADLINE_S) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        stream = connection.makefile("rb")
        reply = io.BytesIO(stream.read(struct.unpack(">i", stream.read(4))[0]))
    assert struct.unpack(">i", reply.read(4)) == (7,)
    return Fetched(reply)


def fetches(broker, topic, sizes=(1, 300, 1 << 20)):
    """Returns the responses to fetches from every offset, with each of the size limits."""
    end = fetch(broker, topic, 0).high_watermark
    return [
        fetch(broker, topic, offset, max_bytes, isolation)
        for isolation in (0, 1)
        for max_bytes in sizes
        for offset in range(end + 1)
    ]
