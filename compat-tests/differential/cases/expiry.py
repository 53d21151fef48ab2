"""Expiry by time: records under retention, and committed offsets."""

import time

from ..records import batch
from ._bodies import append, fetch, list_offsets
from ._members import Group

SETTINGS = {
    "log_retention_check_interval_ms": "200",
    "log_initial_task_delay_ms": "200",
    "offsets_retention_check_interval_ms": "200",
}
_T0 = 1_600_000_000_000
_TIMEOUT_S = 40
_SPECIAL = (-1, -2, -3, -4, -5, -6)


def _wait(t, what, is_so):
    deadline = time.monotonic() + _TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def _start_of(t, topic):
    answer = t.call("ListOffsets", 7, list_offsets(topic, -2))
    return answer["topics"][0]["partitions"][0]["offset"]


def _alter(t, topic, key, value):
    configs = [{"name": key, "configOperation": 0, "value": value}]
    answer = t.call("IncrementalAlterConfigs", 1, {"resources": [
        {"resourceType": 2, "resourceName": topic, "configs": configs}]})  # fmt: skip
    assert answer["responses"][0]["errorCode"] == 0, answer


def _look(t, topic, *times):
    for at in (*_SPECIAL, *times):
        for version in (7, 9, 11):
            t.ask(f"time {at}", "ListOffsets", version, list_offsets(topic, at))


def by_time(t):
    topic = t.topic(1)
    for at in range(3):
        append(t, topic, batch([b"a", b"b"], [_T0 + at, _T0 + at]))
    _look(t, topic, _T0 + 1)
    _alter(t, topic, "retention.ms", "1000")
    _wait(t, "all records are old", lambda: _start_of(t, topic) == 6)
    for at in (*_SPECIAL, _T0 + 1, 0):
        t.ask(f"later, time {at}", "ListOffsets", 9, list_offsets(topic, at))
    for offset in (0, 5, 6, 7):
        t.ask(f"offset {offset}", "Fetch", 12, fetch(t, topic, fetchOffset=offset))
    asked = [{"partition": 0, "leaderEpoch": 0, "currentLeaderEpoch": 0}]
    t.ask("the end of the epoch", "OffsetForLeaderEpoch", 4,
          {"topics": [{"topic": topic, "partitions": asked}]})  # fmt: skip
    _alter(t, topic, "retention.ms", "-1")
    now = int(time.time() * 1000)
    t.note("the next offset", append(t, topic, batch([b"c"], [now])))
    t.ask("then the latest", "ListOffsets", 9, list_offsets(topic, -3))
    t.ask("then the earliest", "ListOffsets", 9, list_offsets(topic, -2))
    t.ask("below", "DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 2}]}]})  # fmt: skip


def by_size(t):
    topic = t.topic(1, segment_bytes=1048576)
    large = b"x" * 600_000
    for at in range(4):
        append(t, topic, batch([b"a", large], [_T0 + 2 * at, _T0 + 2 * at + 1]))
    _look(t, topic, _T0 + 3)
    _alter(t, topic, "retention.bytes", "700000")
    _wait(t, "the log is too large", lambda: _start_of(t, topic) > 0)
    time.sleep(0.3)
    for at in (*_SPECIAL, _T0, _T0 + 3, _T0 + 5, _T0 + 6, _T0 + 7):
        t.ask(f"later, time {at}", "ListOffsets", 9, list_offsets(topic, at))
    for offset in (0, 3, 4, 5, 7, 8):
        body = fetch(t, topic, fetchOffset=offset, maxBytes=1, partitionMaxBytes=1)
        answer = t.call("Fetch", 12, body)
        row = answer["responses"][0]["partitions"][0]
        row["records"] = f"{len(row['records'] or b'') // 100_000} x 100,000 bytes"
        t.note_answer(f"offset {offset}", "Fetch", 12, answer)


def offsets_of_a_simple_group(t):
    topic = t.topic(2)
    group = Group(t).id

    def commit(version, partition, retention):
        rows = [{"partitionIndex": partition, "committedOffset": 5}]
        fields = {"retentionTimeMs": retention} if version <= 4 else {}
        t.ask(f"partition {partition}", "OffsetCommit", version, {
            "groupId": group, "topics": [{"name": topic, "partitions": rows}], **fields})  # fmt: skip

    def kept():
        answer = t.call("OffsetFetch", 8, {"groups": [{"groupId": group, "topics": None}]})
        topics = answer["groups"][0]["topics"]
        return sum(len(it["partitions"]) for it in topics)

    commit(4, 0, 300)
    commit(5, 1, None)
    _wait(t, "one is expired", lambda: kept() == 1)
    t.ask("the other is kept", "OffsetFetch", 8,
          {"groups": [{"groupId": group, "topics": None}]})  # fmt: skip
    commit(2, 1, 1)
    _wait(t, "all are expired", lambda: kept() == 0)
    _wait(t, "the group is gone", lambda: _state(t, group) == "Dead")
    t.ask("the group is gone", "DescribeGroups", 6, {"groups": [group]})
    t.ask("the group is gone", "OffsetFetch", 8, {"groups": [
        {"groupId": group, "topics": [{"name": topic, "partitionIndexes": [0, 1]}]}]})  # fmt: skip


def _state(t, group):
    return t.call("DescribeGroups", 5, {"groups": [group]})["groups"][0]["groupState"]


def offsets_of_members(t):
    """Offsets of a group with members do not expire. Without members, offsets and group do."""
    topic = t.topic(1)
    group = Group(t)
    a = group.member("a")
    group.gather(a)
    a.commit("as a member", topic, 4, retentionTimeMs=1)
    time.sleep(1)
    t.ask("not subscribed to it", "OffsetFetch", 8,
          {"groups": [{"groupId": group.id, "topics": None}]})  # fmt: skip
    a.leave()
    _wait(t, "the group is gone", lambda: group.state() == "Dead")
    a.heartbeat("the group is gone")
    a.join("with its old id")
