"""Partitions in transactions: batches of producers, markers, and what consumers get."""

from ..records import batch
from ._bodies import append, fetch, list_offsets, produce
from ._transactions import SETTINGS as SHARED
from ._transactions import TRANSACTIONAL, Held, Producer, by_topic

SETTINGS = SHARED
_CONTROL = 0x20
# Produce adds the partition to the transaction from version 12 on. Versions 13 is the first with
# topic ids.
_VERSIONS = (3, 9, 10, 11, 12, 13)


def _ask(p, topic, label, version, records=None, partition=0, **fields):
    """Sends a batch. The next sequence number is used unless `records` is given."""
    records = p.records(topic=topic, partition=partition) if records is None else records
    body = p.produce_body(topic, records, version, partition, **fields)
    p.t.ask(label, "Produce", version, body)


def _log(t, topic, label, isolation=0):
    """Adds the batches and markers of a partition to the transcript."""
    t.ask(label, "Fetch", 12, fetch(t, topic, isolationLevel=isolation))


def first_batch(t):
    """Until version 11 the partition must be in the transaction. Later versions add it."""
    for version in _VERSIONS:
        topic = t.topic(2)
        p = Producer(t, f"id for {version}")
        _ask(p, topic, "not added", version)
        p.note_state(f"after it, {version}")
        p = Producer(t, f"second for {version}")
        p.add((topic, 0))
        _ask(p, topic, "added", version)
        _ask(p, topic, "the next batch", version)
        _ask(p, topic, "another partition", version, partition=1)
        p.note_state(f"in it, {version}")
        p.end(version=5 if version >= 12 else 4)
        _ask(p, topic, "after the end", version)
        p.note_state(f"after the end, {version}")
        _log(t, topic, f"the log, {version}")


def wrong_producers(t):
    topic = t.topic(1)
    for version in (9, 11, 12):
        p = Producer(t, f"id for {version}").add((topic, 0))
        batches = {
            "another producer id": p.records(producer_id=p.producer_id + 1),
            "an epoch below": p.records(producer_epoch=-1),
            "an epoch above": p.records(producer_epoch=p.epoch + 1),
            "sequence 5 first": p.records(sequence=5),
            "no producer id": batch([b"a"], attributes=TRANSACTIONAL),
            "not transactional": p.records(attributes=0),
            "a control batch": p.records(attributes=TRANSACTIONAL | _CONTROL),
            "a control batch alone": p.records(attributes=_CONTROL),
        }
        for label, records in batches.items():
            _ask(p, topic, label, version, records)
        unknown = t.new_name("unknown")
        _ask(p, topic, "an unknown id", version, p.records(), transactionalId=unknown)
        _ask(p, topic, "an empty id", version, p.records(), transactionalId="")
        _ask(p, topic, "no id", version, p.records(), transactionalId=None)
        p.note_state(f"after it, {version}")
        two = p.records() + p.records(producer_id=p.producer_id + 1)
        _ask(p, topic, "two batches", version, two)
        p.abort()
    _log(t, topic, "the log")


def several_partitions(t):
    """One request with several producers, with unknown partitions, and with plain batches."""
    topic = t.topic(3)
    for version in (11, 12):
        p, q = Producer(t, f"a{version}"), Producer(t, f"b{version}")
        p.add((topic, 0), (topic, 1))

        def ask(label, *partitions, p=p, version=version, **fields):
            data = [{"index": index, "records": records} for index, records in partitions]
            body = p.produce_body(topic, b"", version, **fields)
            body["topicData"][0]["partitionData"] = data
            t.ask(label, "Produce", version, body)

        mine, other = p.records(), q.records()
        plain = batch([b"plain"])
        ask("two producers", (0, mine), (1, other))
        ask("one is plain", (0, mine), (1, plain))
        ask("one is added", (1, p.records(topic="one")), (2, p.records(topic="one")))
        ask("one is unknown", (1, p.records(sequence=2)), (7, p.records()))
        ask("one twice", (1, p.records(sequence=4)), (1, p.records(sequence=4)))
        p.note_state(f"in it, {version}")
        p.abort()


def epochs_and_sequences(t):
    """Sequence numbers within a transaction, after it, and after an epoch."""
    for version, ended_by in ((11, 4), (12, 5)):
        topic = t.topic(1)
        p = Producer(t, f"id for {version}").add((topic, 0))

        def ask(label, sequence, p=p, version=version, topic=topic, **fields):
            _ask(p, topic, label, version, p.records(sequence=sequence, **fields))

        def add(p=p, version=version, topic=topic):
            if version < 12:
                p.add((topic, 0))

        ask("first", 0)
        ask("duplicate", 0)
        ask("a gap", 4)
        ask("next", 2)
        ask("not transactional", 4, attributes=0)
        p.end(version=ended_by)
        ask("after the end", 4)
        ask("duplicate after the end", 2)
        ask("from 0 after the end", 0)
        add()
        ask("added, a gap", 9)
        ask("added, from 0", 0)
        ask("added, next", 4)
        ask("added, the epoch before", 6, producer_epoch=p.epoch - 1)
        p.note_state(f"in it, {version}")
        p.end(False, ended_by)
        p.init()
        add()
        ask("a new epoch, not from 0", 3)
        ask("a new epoch, from 0", 0)
        ask("the old epoch", 2, producer_epoch=p.epoch - 1)
        p.end(version=ended_by)
        ask("not transactional after the end", 0 if version >= 12 else 2, attributes=0)
        ask("not transactional, next", 2 if version >= 12 else 4, attributes=0)
        _log(t, topic, f"the log, {version}")


def lowest_sequence(t):
    """A batch that fails its check keeps the lowest sequence that was tried."""
    topic = t.topic(1)
    p = Producer(t)
    _ask(p, topic, "sequence 4, not added", 11, p.records(sequence=4))
    _ask(p, topic, "sequence 2, not added", 11, p.records(sequence=2))
    p.add((topic, 0))
    _ask(p, topic, "sequence 6, added", 11, p.records(sequence=6))
    _ask(p, topic, "sequence 4, added", 11, p.records(sequence=4))
    _ask(p, topic, "sequence 2, added", 11, p.records(sequence=2))
    _ask(p, topic, "sequence 4 again", 11, p.records(sequence=4))
    p.abort()
    _log(t, topic, "the log")


def during_the_end(t):
    """Batches while the markers are written."""
    held, topic = Held(t), t.topic(1)
    for version in (10, 11, 12):
        p = Producer(t, f"id for {version}").add((held.topic, 0), (topic, 0))
        p.end(is_complete=False)
        _ask(p, topic, "the same epoch", version)
        _ask(p, topic, "the next epoch", version, p.records(producer_epoch=p.epoch + 1))
    held.release()


def _marker(p, *partitions, commit=True, coordinator_epoch=0, version=None, **fields):
    topics = by_topic(*partitions, key="partitionIndexes")
    marker = {"producerId": p.producer_id, "producerEpoch": p.epoch, "transactionResult": commit,
              "topics": topics, "coordinatorEpoch": coordinator_epoch}  # fmt: skip
    return {**marker, **({} if version is None else {"transactionVersion": version}), **fields}


def write_markers(t):
    """WriteTxnMarkers, which only brokers send."""
    for version in (1, 2):
        topic = t.topic(3)
        p = Producer(t, f"id for {version}").add((topic, 0), (topic, 1))
        p.produce(topic)
        p.produce(topic, partition=1)

        def ask(label, *markers, version=version):
            t.ask(label, "WriteTxnMarkers", version, {"markers": list(markers)})

        ask("nothing")
        ask("no partitions", _marker(p))
        ask("unknown partitions", _marker(p, (topic, 7), ("none-such", 0), (topic, -1)))
        ask("one is unknown", _marker(p, (topic, 0), (topic, 7)))
        ask("nothing is open", _marker(p, (topic, 0)))
        ask("a partition without records", _marker(p, (topic, 2), commit=False))
        ask("of an epoch below", _marker(p, (topic, 1), producerEpoch=p.epoch - 1))
        ask("of an epoch above", _marker(p, (topic, 1), producerEpoch=p.epoch + 1))
        ask("again", _marker(p, (topic, 1), producerEpoch=p.epoch + 1))
        ask("of another producer", _marker(p, (topic, 1), producerId=p.producer_id + 1))
        ask("producer id -1", _marker(p, (topic, 1), producerId=-1))
        ask("epoch -1", _marker(p, (topic, 1), producerEpoch=-1))
        ask("coordinator epoch 5", _marker(p, (topic, 0), producerEpoch=p.epoch + 2,
                                           coordinator_epoch=5))  # fmt: skip
        ask("coordinator epoch 4", _marker(p, (topic, 0), producerEpoch=p.epoch + 3,
                                           coordinator_epoch=4))  # fmt: skip
        ask("coordinator epoch 4 in another partition",
            _marker(p, (topic, 1), producerEpoch=p.epoch + 3, coordinator_epoch=4))  # fmt: skip
        ask("coordinator epoch -1", _marker(p, (topic, 0), producerEpoch=p.epoch + 4,
                                            coordinator_epoch=-1))  # fmt: skip
        q = Producer(t, f"second for {version}")
        ask("several", _marker(q, (topic, 0)), _marker(p, (topic, 2), producerEpoch=p.epoch + 5))
        ask("one producer twice", _marker(q, (topic, 0), producerEpoch=q.epoch + 1),
            _marker(q, (topic, 2), producerEpoch=q.epoch + 1))  # fmt: skip
        _log(t, topic, f"the log, {version}")


def marker_epochs(t):
    """With transaction version 2, a marker needs a higher epoch than the batches."""
    for version in (0, 1, 2, 3):
        topic = t.topic(1)
        p = Producer(t, f"id for version {version}")
        p.init()
        p.produce(topic, version=12)

        def ask(label, epoch, p=p, version=version, topic=topic, commit=True):
            marker = _marker(p, (topic, 0), commit=commit, version=version, producerEpoch=epoch)
            t.ask(f"{label}, version {version}", "WriteTxnMarkers", 2, {"markers": [marker]})

        ask("an epoch below", p.epoch - 1)
        ask("the same epoch", p.epoch)
        ask("the next epoch", p.epoch + 1)
        ask("the next epoch again", p.epoch + 1, commit=False)
        ask("the same epoch after it", p.epoch)
        ask("epoch 32767", 32767)
        ask("epoch 32767 again", 32767)
        _log(t, topic, f"the log, {version}")


def markers_of_unknown_version(t):
    """A marker that does not name its transaction version is refused, but for an old epoch first."""
    topic, group = t.topic(1), t.new_name("group")
    t.find_coordinator(group)
    p = Producer(t)
    p.init()
    p.produce(topic, version=12)
    offsets = "__consumer_offsets"
    partitions = {"a topic": (topic, 0), "a group": (offsets, 0), "an unknown one": (topic, 7)}
    for where, partition in partitions.items():
        def ask(label, epoch, where=where, partition=partition):
            marker = _marker(p, partition, version=-1, producerEpoch=epoch)
            t.ask(f"{label}, {where}", "WriteTxnMarkers", 2, {"markers": [marker]})

        ask("an epoch below", p.epoch - 1)
        ask("the same epoch", p.epoch)
        ask("the next epoch", p.epoch + 1)
    marker = _marker(p, (offsets, 0), version=1, producerEpoch=p.epoch + 1)
    t.ask("with a version", "WriteTxnMarkers", 2, {"markers": [marker]})
    marker = _marker(p, (offsets, 0), version=-1)
    t.ask("an epoch below after it, a group", "WriteTxnMarkers", 2, {"markers": [marker]})
    _log(t, topic, "the log")


def markers_of_offsets(t):
    """Markers of __consumer_offsets go through the group coordinator."""
    group = t.new_name("group")
    t.find_coordinator(group)
    p = Producer(t)
    offsets = "__consumer_offsets"
    for version in (1, 2):
        def ask(label, marker, version=version):
            t.ask(label, "WriteTxnMarkers", version, {"markers": [marker]})

        ask("nothing is open", _marker(p, (offsets, 0), commit=False))
        ask("an unknown partition", _marker(p, (offsets, 99)))
        ask("of a higher epoch", _marker(p, (offsets, 0), producerEpoch=p.epoch + version))
        ask("of the epoch below", _marker(p, (offsets, 0)))


def consumers(t):
    """Fetch, ListOffsets and DescribeProducers while a transaction is open, and after it."""
    topic = t.topic(1)
    append(t, topic, batch([b"before"]))
    p, q = Producer(t, "a"), Producer(t, "b")

    def look(label):
        for isolation in (0, 1):
            for offset in (0, 1, 4, 6):
                t.ask(f"{label}, offset {offset}, isolation {isolation}", "Fetch", 12,
                      fetch(t, topic, isolationLevel=isolation, fetchOffset=offset))  # fmt: skip
            for version in (2, 10):
                t.ask(f"{label}, isolation {isolation}", "ListOffsets", version,
                      list_offsets(topic, -1, isolationLevel=isolation))  # fmt: skip
            for time in (-2, -3, 0, 1_600_000_000_010):
                t.ask(f"{label}, time {time}, isolation {isolation}", "ListOffsets", 10,
                      list_offsets(topic, time, isolationLevel=isolation))  # fmt: skip
        asked = {"topics": [{"name": topic, "partitionIndexes": [0]}]}
        answer = t.call("DescribeProducers", 0, asked)
        producers = answer["topics"][0]["partitions"][0]["activeProducers"]
        producers.sort(key=lambda it: it["producerId"])
        t.note_answer(label, "DescribeProducers", 0, answer)

    p.add((topic, 0)).produce(topic)
    look("an open one")
    append(t, topic, batch([b"between"]))
    q.add((topic, 0)).produce(topic)
    look("two open ones")
    q.abort()
    look("the second is aborted")
    p.end()
    look("both are done")
    q.init()
    q.produce(topic, version=12)
    q.abort(version=5)
    look("another is aborted")
    for version in (4, 5, 7, 11, 13, 17, 18):
        t.ask("the whole", "Fetch", version, fetch(t, topic, version, isolationLevel=1))


def aborted_lists(t):
    """The list of aborted transactions is that of the returned batches."""
    topic = t.topic(1)
    producers = [Producer(t, name) for name in ("a", "b", "c")]
    for p in producers:
        p.add((topic, 0))
    for _ in range(2):
        for p in producers:
            p.produce(topic, (b"x" * 50,))
    a, b, c = producers
    b.abort()
    a.produce(topic, (b"x" * 50,))
    c.end()
    a.abort()
    a.add((topic, 0)).produce(topic, (b"x" * 50,))
    a.abort()
    append(t, topic, batch([b"after"]))
    for offset in range(13):
        for size in (1, 300, 1 << 20):
            t.ask(f"{size} bytes from {offset}", "Fetch", 12, fetch(
                  t, topic, isolationLevel=1, fetchOffset=offset, partitionMaxBytes=size))  # fmt: skip
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 3}]}]})  # fmt: skip
    _log(t, topic, "below the log start", 1)
    t.ask("behind the deleted records", "Fetch", 12,
          fetch(t, topic, isolationLevel=1, fetchOffset=3))  # fmt: skip


def compressed_and_stamped(t):
    """Transactional batches that the broker recompresses or stamps, and compacted topics."""
    topics = {
        "recompressed": t.topic(1, compression_type="gzip"),
        "stamped": t.topic(1, message_timestamp_type="LogAppendTime"),
        "compacted": t.topic(1, cleanup_policy="compact"),
    }
    for label, topic in topics.items():
        p = Producer(t, label).add((topic, 0))
        _ask(p, topic, label, 11)
        p.end()
        _log(t, topic, f"{label}, the log", 1)


def plain_producers(t):
    """Batches without a transaction beside an open one. Acks do not matter to a transaction."""
    topic = t.topic(1)
    p = Producer(t).add((topic, 0))
    p.produce(topic)
    t.ask("a plain batch", "Produce", 11, produce(t, topic, batch([b"plain"]), 11))
    other = batch([b"other"], producer_id=930_000_000, producer_epoch=0, sequence=0)
    t.ask("an idempotent batch", "Produce", 11, produce(t, topic, other, 11))
    connection = t.connect()
    connection.send("Produce", 11, p.produce_body(topic, p.records(topic=topic), acks=0))
    body = p.produce_body(topic, p.records(topic=topic), acks=1)
    t.note("acks 1 after acks 0", connection.request("Produce", 11, body))
    p.end()
    _log(t, topic, "the log", 1)
