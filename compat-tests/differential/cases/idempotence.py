"""Producer ids: duplicates, gaps, epochs, and DescribeProducers."""

import time

from ..records import batch
from ._bodies import fetch, produce


def _send(t, topic, label, producer_id, epoch, sequence, values=(b"a", b"b")):
    records = batch(
        list(values), producer_id=producer_id, producer_epoch=epoch, sequence=sequence
    )
    t.ask(label, "Produce", 9, produce(t, topic, records))


def init_producer_id(t):
    body = {"transactionalId": None, "transactionTimeoutMs": 60000}
    deadline = time.monotonic() + 20
    # Apache Kafka refuses until its controller has assigned a block of ids to it.
    while t.call("InitProducerId", 4, body)["errorCode"] != 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    for version in range(0, 6):
        t.ask("an id", "InitProducerId", version, body)
    for version in (3, 4, 5):
        given = {"transactionTimeoutMs": 60000, "transactionalId": None}
        t.ask("with an id and epoch", "InitProducerId", version,
              {**given, "producerId": 5, "producerEpoch": 3})  # fmt: skip
        t.ask("with an epoch alone", "InitProducerId", version, {**given, "producerEpoch": 3})
        t.ask("with an id alone", "InitProducerId", version, {**given, "producerId": 5})
    for producer_id, epoch in ((-2, -1), (-1, -2), (-2, -2), (5, -2), (-2, 3), (5, 32767)):
        for version in (3, 5):
            t.ask(f"id {producer_id}, epoch {epoch}", "InitProducerId", version,
                  {**body, "producerId": producer_id, "producerEpoch": epoch})  # fmt: skip
    t.ask("an empty transactional id", "InitProducerId", 2,
          {"transactionalId": "", "transactionTimeoutMs": 60000})  # fmt: skip
    t.ask("no timeout", "InitProducerId", 2,
          {"transactionalId": None, "transactionTimeoutMs": -1})  # fmt: skip


def sequences(t):
    topic = t.topic(1)
    _send(t, topic, "first", 7001, 0, 0)
    _send(t, topic, "again", 7001, 0, 0)
    _send(t, topic, "next", 7001, 0, 2)
    _send(t, topic, "a gap", 7001, 0, 9)
    _send(t, topic, "the first once more", 7001, 0, 0)
    _send(t, topic, "part of what was sent", 7001, 0, 1)
    for at in range(4, 14, 2):
        _send(t, topic, f"sequence {at}", 7001, 0, at)
    _send(t, topic, "older than five batches", 7001, 0, 0)
    _send(t, topic, "the oldest of five", 7001, 0, 4)
    _send(t, topic, "the newest again", 7001, 0, 12)
    _send(t, topic, "negative", 7001, 0, -1)
    _send(t, topic, "negative epoch", 7001, -1, 14)


def epochs(t):
    topic = t.topic(1)
    _send(t, topic, "first", 7002, 3, 0)
    _send(t, topic, "an older epoch", 7002, 2, 2)
    _send(t, topic, "a newer epoch, not from 0", 7002, 4, 2)
    _send(t, topic, "a newer epoch", 7002, 4, 0)
    _send(t, topic, "the epoch before", 7002, 3, 2)
    _send(t, topic, "a duplicate of the epoch before", 7002, 3, 0)


def unknown_producers(t):
    topic = t.topic(1)
    _send(t, topic, "not from 0", 7003, 0, 5)
    _send(t, topic, "and on", 7003, 0, 7)
    _send(t, topic, "negative id and a sequence", -1, 0, 5)
    _send(t, topic, "id -2", -2, 0, 0)
    _send(t, topic, "id -2 and no sequence", -2, -1, -1)
    _send(t, topic, "id -9 and epoch -9", -9, -9, -9)
    _send(t, topic, "epoch -2", 7009, -2, 0)
    _send(t, topic, "epoch -1", 7009, -1, 0)
    _send(t, topic, "sequence -2", 7009, 0, -2)
    _send(t, topic, "id -1 and an epoch", -1, 3, -1)
    _send(t, topic, "the least of all", -(2**63), -(2**15), -(2**31))


def sequence_wraps(t):
    topic = t.topic(1)
    last = 2**31 - 1
    _send(t, topic, "near the end", 7004, 0, last - 1)
    _send(t, topic, "from 0 again", 7004, 0, 0)
    _send(t, topic, "duplicate", 7004, 0, last - 1)
    _send(t, topic, "across", 7005, 0, last, (b"a", b"b", b"c"))
    _send(t, topic, "after it", 7005, 0, 2)


def two_batches_of_a_producer(t):
    topic = t.topic(1)
    two = batch([b"a"], producer_id=7006, producer_epoch=0, sequence=0)
    two += batch([b"b"], producer_id=7006, producer_epoch=0, sequence=1)
    t.ask("in one request", "Produce", 9, produce(t, topic, two))
    stamped = t.topic(1, message_timestamp_type="LogAppendTime")
    for label in ("first", "duplicate"):
        _send(t, stamped, label, 7007, 0, 0)
    t.ask("read back", "Fetch", 12, fetch(t, topic))


def describe_producers(t):
    topic = t.topic(2)
    for producer_id in (7011, 7010):
        _send(t, topic, f"first of {producer_id}", producer_id, 1, 0)
    answer = t.call("DescribeProducers", 0, {"topics": [
        {"name": topic, "partitionIndexes": [0, 1, 5]}, {"name": "none-such",
         "partitionIndexes": [0]}]})  # fmt: skip
    for asked in answer["topics"]:
        for partition in asked["partitions"]:
            partition["activeProducers"].sort(key=lambda it: it["producerId"])
    t.note_answer("describe", "DescribeProducers", 0, answer)
    t.ask("nothing", "DescribeProducers", 0, {"topics": []})
    t.ask("no partitions", "DescribeProducers", 0,
          {"topics": [{"name": topic, "partitionIndexes": []}]})  # fmt: skip
    t.ask("bad name", "DescribeProducers", 0,
          {"topics": [{"name": "bad name", "partitionIndexes": [0]}]})  # fmt: skip
