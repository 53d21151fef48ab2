"""Produce without producer ids: accepted records, and the errors of refused ones."""

import os

from ..records import GZIP, batch, old_message_set, record
from ._bodies import fetch, produce

_UNKNOWN_ID = "11111111-2222-3333-4444-555555555555"
_VALUES = [b"one", b"two", b"three"]


def every_version(t):
    topic = t.topic(2)
    # ApiVersions lists these versions for librdkafka, but the broker does not serve them.
    t.ask_all("append", "Produce", lambda v: produce(t, topic, batch(_VALUES), v), range(3))
    t.ask_all("append", "Produce", lambda v: produce(t, topic, batch(_VALUES), v))
    t.ask_all("all replicas", "Produce", lambda v: produce(t, topic, batch(_VALUES), v, 1, -1))
    t.ask("read back", "Fetch", 12, fetch(t, topic))


def unknown_partitions(t):
    topic = t.topic(1)
    for partition in (1, -1, 2**31 - 1):
        t.ask_all(f"partition {partition}", "Produce",
                  lambda v, it=partition: produce(t, topic, batch(_VALUES), v, it))  # fmt: skip
    for name in ("no-such-topic", "", "bad name", "x" * 250):
        body = {"acks": 1, "timeoutMs": 1000, "topicData": [
            {"name": name, "partitionData": [{"index": 0, "records": batch(_VALUES)}]}]}  # fmt: skip
        t.ask(f"topic {name[:20]!r}", "Produce", 9, body)
        t.ask(f"topic {name[:20]!r}", "Produce", 12, body)
    for id_ in (_UNKNOWN_ID, "00000000-0000-0000-0000-000000000000"):
        body = {"acks": 1, "timeoutMs": 1000, "topicData": [
            {"topicId": id_, "partitionData": [{"index": 0, "records": batch(_VALUES)}]}]}  # fmt: skip
        t.ask(f"topic id {id_}", "Produce", 13, body)


def acks(t):
    topic = t.topic(1)
    for value in (2, -2, 127, -1, 1):
        t.ask_all(f"acks {value}", "Produce",
                  lambda v, it=value: produce(t, topic, batch(_VALUES), v, acks=it), (3, 9, 12, 13))  # fmt: skip
    t.ask("acks 2 and an unknown partition", "Produce", 9,
          produce(t, topic, batch(_VALUES), 9, 5, 2))  # fmt: skip


def no_acks(t):
    topic = t.topic(1)
    connection = t.connect()
    connection.send("Produce", 9, produce(t, topic, batch(_VALUES), acks=0))
    t.note("the next request is answered", connection.request("Fetch", 12, fetch(t, topic)))
    connection.send("Produce", 9, produce(t, topic, batch(_VALUES), 9, 7, 0))
    t.note("an error closes", connection.receive_frame())
    connection.close()


def many_topics_and_partitions(t):
    first, second = t.topic(2), t.topic(1)

    def data(index, values=_VALUES):
        return {"index": index, "records": batch(values)}

    def body(*topics):
        return {"acks": 1, "timeoutMs": 1000, "topicData": [
            {"name": name, "partitionData": list(partitions)} for name, *partitions in topics]}  # fmt: skip

    t.ask("two topics", "Produce", 9, body((first, data(1), data(0)), (second, data(0))))
    t.ask("one of them unknown", "Produce", 9,
          body(("none-such", data(0)), (second, data(0), data(3)), (first, data(0))))  # fmt: skip
    t.ask("a partition twice", "Produce", 9, body((first, data(0), data(0, [b"second"]))))
    t.ask("a topic twice", "Produce", 9,
          body((first, data(0)), (second, data(0)), (first, data(1))))  # fmt: skip
    t.ask("a topic and partition twice", "Produce", 9, body((first, data(0)), (first, data(0))))
    t.ask("no partitions", "Produce", 9, body((first,)))
    t.ask("no topics", "Produce", 9, body())
    t.ask("what is there", "ListOffsets", 7, {"replicaId": -1, "topics": [
        {"name": first, "partitions": [{"partitionIndex": it, "timestamp": -1} for it in (0, 1)]},
        {"name": second, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}]})  # fmt: skip


def internal_topics(t):
    t.call("FindCoordinator", 4, {"keyType": 0, "coordinatorKeys": ["any"]})
    t.wait_for("__consumer_offsets", 0)
    body = {"acks": 1, "timeoutMs": 1000, "topicData": [{
        "name": "__consumer_offsets", "partitionData": [{"index": 0, "records": batch(_VALUES)}]}]}  # fmt: skip
    t.ask("a client", "Produce", 9, body)


def records_that_are_none(t):
    topic = t.topic(1)
    for label, records in {"empty": b"", "one byte": b"\0", "a header only":
                           batch([])[:61], "cut off": batch(_VALUES)[:-3]}.items():  # fmt: skip
        t.ask_all(label, "Produce", lambda v, it=records: produce(t, topic, it, v))


def null_records(t):
    topic = t.topic(1)
    connection = t.connect()
    connection.send("Produce", 9, produce(t, topic, None))
    answer = connection.receive_frame(timeout=1)
    t.note("null", answer if isinstance(answer, str) else "an answer")
    connection.close()


def broken_batches(t):
    topic = t.topic(1)
    good = batch(_VALUES)
    wrong = {
        "no records": batch([]),
        "no records and a delta of 0": batch([], last_offset_delta=0),
        "two batches": good + good,
        "bytes after the batch": good + b"\0\0\0\0",
        "half a batch after the batch": good + good[:70],
        "CRC": batch(_VALUES, crc=1),
        "magic 3": batch(_VALUES, magic=3),
        "magic -1": batch(_VALUES, magic=-1),
        "length too small": batch(_VALUES, length=20),
        "length too large": batch(_VALUES, length=9999),
        "length negative": batch(_VALUES, length=-1),
        "count too small": batch(_VALUES, count=2),
        "count too large": batch(_VALUES, count=4),
        "count negative": batch(_VALUES, count=-1),
        "count of 0": batch(_VALUES, count=0),
        "delta too large": batch(_VALUES, last_offset_delta=7),
        "delta too small": batch(_VALUES, last_offset_delta=1),
        "delta negative": batch(_VALUES, last_offset_delta=-1),
        "base offset 5": batch(_VALUES, base_offset=5),
        "base offset -1": batch(_VALUES, base_offset=-1),
        "leader epoch 77": batch(_VALUES, leader_epoch=77),
        "codec 5": batch(_VALUES, attributes=5),
        "codec 7": batch(_VALUES, attributes=7),
        "unused attributes": batch(_VALUES, attributes=0x4000),
        "a control batch": batch(_VALUES, attributes=0x20),
        "a delete horizon": batch(_VALUES, attributes=0x40),
        "log append time claimed": batch(_VALUES, attributes=8),
        "offsets not in order": batch([b"", b""], payload=record(0, 0, b"a") + record(3, 0, b"b")),
        "offsets from 1 on": batch([b"", b""], payload=record(1, 0, b"a") + record(2, 0, b"b")),
        "bytes after the records": batch([b""], payload=record(0, 0, b"a") + b"\0\0"),
        "a record cut off": batch([b""], payload=record(0, 0, b"abcdef")[:-2]),
        "a record that says too much": batch([b""], payload=b"\x7f\0\0\0\1\1\0"),
        "a record of negative length": batch([b""], payload=b"\1\0\0\0\1\1\0"),
        "null headers": batch([b""], payload=b"\x0e\0\0\0\1\1\1\0"),
        "a null header key": batch([b""], payload=b"\x10\0\0\0\1\1\2\1\1"),
        "wrong max timestamp": batch(_VALUES, max_timestamp=5),
        "a producer without sequence": batch(_VALUES, producer_id=1, producer_epoch=0),
    }  # fmt: skip
    for label, records in wrong.items():
        t.ask(label, "Produce", 9, produce(t, topic, records))
    t.ask("which are in the log", "ListOffsets", 7, {"replicaId": -1, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}]})  # fmt: skip


def compressed_batches(t):
    topic = t.topic(1)
    wrong = {
        "gzip": batch(_VALUES, attributes=GZIP),
        "garbage": batch(_VALUES, attributes=GZIP, compress=False),
        "nothing inside": batch([], attributes=GZIP),
        "count too small": batch(_VALUES, attributes=GZIP, count=2),
        "count too large": batch(_VALUES, attributes=GZIP, count=4),
        "offsets not in order": batch([b"", b""], attributes=GZIP,
                                      payload=record(0, 0, b"a") + record(3, 0, b"b")),
        "bytes after the records": batch([b""], attributes=GZIP,
                                         payload=record(0, 0, b"a") + b"\0\0"),
        "empty snappy": batch(_VALUES, attributes=2),
        "garbage for lz4": batch(_VALUES, attributes=3),
        "garbage for zstd": batch(_VALUES, attributes=4),
    }  # fmt: skip
    for label, records in wrong.items():
        t.ask(label, "Produce", 9, produce(t, topic, records))
    t.ask("zstd before version 7", "Produce", 6, produce(t, topic, wrong["garbage for zstd"], 6))
    t.ask("read back", "Fetch", 12, fetch(t, topic))


def old_formats(t):
    topic = t.topic(1)
    for magic in (0, 1):
        records = old_message_set([b"a", b"b"], magic)
        t.ask_all(f"magic {magic}", "Produce", lambda v, it=records: produce(t, topic, it, v),
                  (3, 9, 12))  # fmt: skip


def sizes(t):
    topic = t.topic(1, max_message_bytes=200)
    for label, size in {"fits": 100, "too large": 200}.items():
        t.ask(label, "Produce", 9, produce(t, topic, batch([b"x" * size])))
        t.ask(label, "Produce", 12, produce(t, topic, batch([b"x" * size])))
    exact = 200 - len(batch([b"x" * 100])) + 100
    t.ask("just fits", "Produce", 9, produce(t, topic, batch([b"x" * exact])))
    t.ask("by one", "Produce", 9, produce(t, topic, batch([b"x" * (exact + 1)])))
    packed = batch([b"x" * 5000], attributes=GZIP)
    t.ask("packed small", "Produce", 9, produce(t, topic, packed))
    noise = batch([os.urandom(400).hex().encode()], attributes=GZIP)
    t.ask("packed large", "Produce", 9, produce(t, topic, noise))
    whole = t.topic(1, segment_bytes=1048576, max_message_bytes=3000000)
    t.ask("larger than a segment", "Produce", 9, produce(t, whole, batch([b"x" * 1100000])))


def compacted(t):
    topic = t.topic(1, cleanup_policy="compact")
    keyed = batch(_VALUES, keys=[b"k", b"k", b"k"])
    some = batch(_VALUES, keys=[b"k", None, b"k"])
    for version in (7, 8, 9, 12, 13):
        t.ask("no keys", "Produce", version, produce(t, topic, batch(_VALUES), version))
        t.ask("one key lacks", "Produce", version, produce(t, topic, some, version))
        t.ask("keys", "Produce", version, produce(t, topic, keyed, version))
    t.ask("packed without keys", "Produce", 9,
          produce(t, topic, batch(_VALUES, attributes=GZIP)))  # fmt: skip


def timestamps(t):
    limited = t.topic(1, message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=1000)
    for version in (7, 8, 9, 12):
        t.ask("too old", "Produce", version, produce(t, limited, batch(_VALUES), version))
    t.ask("too new", "Produce", 9, produce(t, limited, batch([b"a"], [9_000_000_000_000])))
    t.ask("none", "Produce", 9, produce(t, limited, batch([b"a"], [-1])))
    t.ask("packed and too old", "Produce", 9, produce(t, limited, batch(_VALUES, attributes=GZIP)))
    plain = t.topic(1)
    t.ask("by default, too new", "Produce", 9,
          produce(t, plain, batch([b"a"], [9_000_000_000_000])))  # fmt: skip
    t.ask("by default, 0", "Produce", 9, produce(t, plain, batch([b"a"], [0])))
    t.ask("by default, -1", "Produce", 9, produce(t, plain, batch([b"a"], [-1])))
    t.ask("by default, -7", "Produce", 9, produce(t, plain, batch([b"a"], [-7])))
    stamped = t.topic(1, message_timestamp_type="LogAppendTime")
    t.ask_all("log append time", "Produce", lambda v: produce(t, stamped, batch(_VALUES), v))
    t.ask("log append time, packed", "Produce", 9,
          produce(t, stamped, batch(_VALUES, attributes=GZIP)))  # fmt: skip
    t.ask("read back", "Fetch", 12, fetch(t, stamped))


def recompression(t):
    topic = t.topic(1, compression_type="gzip")
    t.ask("plain", "Produce", 9, produce(t, topic, batch(_VALUES)))
    t.ask("gzip", "Produce", 9, produce(t, topic, batch(_VALUES, attributes=GZIP)))
    t.ask("broken", "Produce", 9, produce(t, topic, batch(_VALUES, count=4)))
    t.ask("read back", "Fetch", 12, fetch(t, topic))
    plain = t.topic(1, compression_type="uncompressed")
    t.ask("unpacked", "Produce", 9, produce(t, plain, batch(_VALUES, attributes=GZIP)))
    t.ask("read back unpacked", "Fetch", 12, fetch(t, plain))


def transactions_without_coordinator(t):
    topic = t.topic(1)
    transactional = batch(_VALUES, attributes=0x10, producer_id=4000, producer_epoch=0, sequence=0)
    plain_id = batch(_VALUES, producer_id=4001, producer_epoch=0, sequence=0)
    for version in (3, 9, 11, 12):
        t.ask("an id and plain records", "Produce", version,
              produce(t, topic, batch(_VALUES), version, transactional_id="tx"))  # fmt: skip
        t.ask("transactional records without an id", "Produce", version,
              produce(t, topic, transactional, version))  # fmt: skip
    t.ask("an id and idempotent records", "Produce", 9,
          produce(t, topic, plain_id, transactional_id="tx"))  # fmt: skip
    t.ask("without a producer id", "Produce", 9,
          produce(t, topic, batch(_VALUES, attributes=0x10)))  # fmt: skip
