"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords."""

from ..records import GZIP, batch
from ._bodies import append, fetch, list_offsets

_T0 = 1_600_000_000_000
_SPECIAL = (-1, -2, -3, -4, -5, -6, -7)


def _timed(t, attributes=0):
    """Creates a topic with batches whose timestamps rise, fall and rise again."""
    topic = t.topic(1)
    for times in ([0, 10, 20], [15, 5], [30, 25, 40]):
        stamps = [_T0 + it for it in times]
        append(t, topic, batch([b"x"] * len(times), stamps, attributes=attributes))
    return topic


def special_times(t):
    topic = _timed(t)
    for special in _SPECIAL:
        t.ask_all(f"time {special}", "ListOffsets", list_offsets(topic, special))


def special_times_of_an_empty_log(t):
    topic = t.topic(1)
    for special in (*_SPECIAL, 0, _T0):
        t.ask_all(f"time {special}", "ListOffsets", list_offsets(topic, special), (1, 7, 11))


def times(t):
    for label, attributes in {"plain": 0, "gzip": GZIP}.items():
        topic = _timed(t, attributes)
        for time in (0, -5, 1, 10, 11, 15, 16, 20, 21, 26, 30, 31, 40, 41):
            body = list_offsets(topic, _T0 + time)
            t.ask(f"{label}, {time}", "ListOffsets", 7, body)
        t.ask(f"{label}, 0", "ListOffsets", 8, list_offsets(topic, 0))
        t.ask(f"{label}, latest", "ListOffsets", 8, list_offsets(topic, -3))
    stamped = t.topic(1, message_timestamp_type="LogAppendTime")
    append(t, stamped, batch([b"a", b"b"]))
    t.ask("log append time, 0", "ListOffsets", 8, list_offsets(stamped, 0))
    t.ask("log append time, latest", "ListOffsets", 8, list_offsets(stamped, -3))


def equal_times(t):
    topic = t.topic(1)
    for _ in range(2):
        append(t, topic, batch([b"a", b"b"], [_T0, _T0]))
    t.ask("latest", "ListOffsets", 8, list_offsets(topic, -3))
    t.ask("that time", "ListOffsets", 8, list_offsets(topic, _T0))
    none = t.topic(1)
    append(t, none, batch([b"a", b"b"], [-1, -1]))
    t.ask("no times, latest", "ListOffsets", 8, list_offsets(none, -3))
    t.ask("no times, 0", "ListOffsets", 8, list_offsets(none, 0))
    # The record with the largest timestamp is in the middle of its batch.
    middle = t.topic(1)
    for attributes in (0, GZIP):
        stamps = [_T0 + 1, _T0 + 90, _T0 + 2, _T0 + 90]
        append(t, middle, batch([b"a"] * 4, stamps, attributes=attributes))
        t.ask(f"in the middle, {attributes}", "ListOffsets", 8, list_offsets(middle, -3))


def after_delete_records(t):
    topic = _timed(t)
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 4}]}]})  # fmt: skip
    for time in (*_SPECIAL, 0, _T0, _T0 + 5, _T0 + 15, _T0 + 20, _T0 + 40):
        t.ask(f"time {time}", "ListOffsets", 9, list_offsets(topic, time))
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": -1}]}]})  # fmt: skip
    for time in (*_SPECIAL, 0, _T0 + 5):
        t.ask(f"all deleted, time {time}", "ListOffsets", 9, list_offsets(topic, time))


def list_offsets_isolation(t):
    topic = _timed(t)
    for level in (0, 1, 2, -1):
        for time in (-1, -2, -3, _T0 + 16, _T0 + 99):
            t.ask(f"level {level}, time {time}", "ListOffsets", 7,
                  list_offsets(topic, time, isolationLevel=level))  # fmt: skip


def list_offsets_refused(t):
    topic = _timed(t)
    for version in (1, 5, 8, 11):
        t.ask("twice", "ListOffsets", version, list_offsets(topic, -1, -2))
        t.ask("partition 1", "ListOffsets", version, list_offsets(topic, -1, partition=1))
        t.ask("partition -1", "ListOffsets", version, list_offsets(topic, -1, partition=-1))
        t.ask("no topic", "ListOffsets", version, list_offsets("none-such", -1))
        t.ask("bad topic", "ListOffsets", version, list_offsets("bad name", -1))
        for epoch in (0, 1, -2):
            body = list_offsets(topic, -1, epoch=epoch)
            t.ask(f"epoch {epoch}", "ListOffsets", version, body)
        for replica in (0, 1, 77, -2, -3):
            body = list_offsets(topic, -1, replicaId=replica)
            t.ask(f"replica {replica}", "ListOffsets", version, body)
    t.ask("nothing", "ListOffsets", 7, {"replicaId": -1, "topics": []})
    twice = list_offsets(topic, -1)
    twice["topics"] *= 2
    t.ask("a topic twice", "ListOffsets", 7, twice)
    t.ask("epoch and time", "ListOffsets", 7, list_offsets(topic, _T0, epoch=1))
    t.ask("timeout", "ListOffsets", 10, list_offsets(topic, -1, timeoutMs=10))


def offset_for_leader_epoch(t):
    topic = _timed(t)
    empty = t.topic(1)

    def body(name, epoch, current=-1, partition=0, replica=-1):
        asked = {"partition": partition, "leaderEpoch": epoch, "currentLeaderEpoch": current}
        return {"replicaId": replica, "topics": [{"topic": name, "partitions": [asked]}]}

    for epoch in (0, 1, -1, 5, -2):
        t.ask_all(f"epoch {epoch}", "OffsetForLeaderEpoch", body(topic, epoch))
        t.ask_all(f"empty, epoch {epoch}", "OffsetForLeaderEpoch", body(empty, epoch))
    for current in (0, 1, -2):
        t.ask_all(f"current epoch {current}", "OffsetForLeaderEpoch", body(topic, 0, current))
    t.ask_all("partition 1", "OffsetForLeaderEpoch", body(topic, 0, partition=1))
    t.ask_all("no topic", "OffsetForLeaderEpoch", body("none-such", 0))
    t.ask_all("replica 1", "OffsetForLeaderEpoch", body(topic, 0, replica=1))
    t.ask_all("replica -2", "OffsetForLeaderEpoch", body(topic, 0, replica=-2))
    t.ask("nothing", "OffsetForLeaderEpoch", 4, {"topics": []})
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": -1}]}]})  # fmt: skip
    t.ask_all("all deleted", "OffsetForLeaderEpoch", body(topic, 0))


def delete_records(t):
    t.find_coordinator(t.new_name("group"))  # creates the internal topic
    topic = _timed(t)

    def body(*asked, name=topic):
        return {"timeoutMs": 5000, "topics": [{"name": name, "partitions": [
            {"partitionIndex": partition, "offset": offset} for partition, offset in asked]}]}  # fmt: skip

    for version in range(0, 3):
        t.ask(f"to {version + 1}", "DeleteRecords", version, body((0, version + 1)))
        t.ask("back to 0", "DeleteRecords", version, body((0, 0)))
        t.ask("past the end", "DeleteRecords", version, body((0, 99)))
        t.ask("offset -2", "DeleteRecords", version, body((0, -2)))
        t.ask("partition 1", "DeleteRecords", version, body((1, 0)))
        t.ask("no topic", "DeleteRecords", version, body((0, 0), name="none-such"))
        t.ask("some", "DeleteRecords", version, body((0, 3), (7, 0)))
    t.ask("twice", "DeleteRecords", 2, body((0, 4), (0, 5)))
    t.ask("to the end", "DeleteRecords", 2, body((0, -1)))
    t.ask("to the end again", "DeleteRecords", 2, body((0, -1)))
    t.ask("nothing left", "Fetch", 12, fetch(t, topic, fetchOffset=8))
    t.ask("no topics", "DeleteRecords", 2, {"timeoutMs": 5000, "topics": []})
    t.ask("no partitions", "DeleteRecords", 2, body())
    compacted = t.topic(1, cleanup_policy="compact")
    t.ask("compacted", "DeleteRecords", 2, body((0, 0), name=compacted))
    both = t.topic(1, cleanup_policy="compact,delete")
    t.ask("compacted and deleted", "DeleteRecords", 2, body((0, 0), name=both))
    t.ask("internal", "DeleteRecords", 2, body((0, 0), name="__consumer_offsets"))
    two = body((0, -1))
    two["topics"] *= 2
    t.ask("a topic twice", "DeleteRecords", 2, two)
