"""AlterReplicaLogDirs, and DescribeLogDirs during moves, on a broker with two directories."""

import os
import time

from ..records import batch
from ._bodies import append, fetch, list_offsets, wait_until_gone

SETTINGS = {"log_dirs": "{dir}/data,{dir}/other"}
_TIMEOUT_S = 30
_RATE = "replica.alter.log.dirs.io.max.bytes.per.second"


def _dirs(t):
    return [str(t.broker.dir / name) for name in ("data", "other")]


def _alter(*moves):
    """The body of AlterReplicaLogDirs, from (path, topic, partitions)."""
    return {"dirs": [{"path": path, "topics": [{"name": topic, "partitions": partitions}]}
                     for path, topic, partitions in moves]}  # fmt: skip


def _replicas(t, topic):
    """Returns a topic's replicas: {(path, partition, is future): (size, lag)}."""
    answer = t.call("DescribeLogDirs", 4, {"topics": None})
    return {
        (result["logDir"], it["partitionIndex"], it["isFutureKey"]):
            (it["partitionSize"], it["offsetLag"])
        for result in answer["results"]
        for described in result["topics"] if described["name"] == topic
        for it in described["partitions"]
    }  # fmt: skip


def _wait(what, is_so):
    deadline = time.monotonic() + _TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def _of_two(t, partition=0, **configs):
    """Creates a topic. Returns it, the directory of its partition, and the other directory."""
    topic = t.topic(partition + 1, **configs)
    here = next(path for path, index, _ in _replicas(t, topic) if index == partition)
    there = next(path for path in _dirs(t) if path != here)
    t.mask_as(here, "here")
    t.mask_as(there, "there")
    return topic, here, there


def _note(t, label, topic):
    shown = [[*key, *value] for key, value in _replicas(t, topic).items()]
    t.note(label, sorted(shown, key=lambda it: it[1:]))


def _limit(t, rate):
    """Sets or (with None) removes the throttle of moves on this broker."""
    _configure(t, _RATE, rate)


def _configure(t, name, value):
    config = {"name": name, "configOperation": 1 if value is None else 0, "value": value}
    t.call("IncrementalAlterConfigs", 1,
           {"resources": [{"resourceType": 4, "resourceName": "1", "configs": [config]}]})  # fmt: skip
    t.settle()


def refusals(t):
    topic, here, there = _of_two(t)
    for version in (1, 2):
        for label, moves in {
            "unknown directory": [("/none/such", topic, [0])],
            "not absolute": [("data", topic, [0])],
            "no directory": [("", topic, [0])],
            "a directory within": [(here + "/within", topic, [0])],
            "with a slash": [(here + "/", topic, [0])],
            "unknown topic": [(here, "none-such", [0])],
            "unknown topic and directory": [("/none/such", "none-such", [0])],
            "unknown partition": [(here, topic, [1])],
            "negative partition": [(here, topic, [-1])],
            "bad name": [(here, "bad name", [0])],
            "no name": [(here, "", [0])],
            "a long name": [(here, "x" * 213, [0])],
            "a name too long": [(here, "x" * 214, [0])],
            "a name too long, unknown directory": [("/none/such", "x" * 214, [0])],
            "where it lies": [(here, topic, [0])],
            "twice": [(here, topic, [0]), (here, topic, [0])],
            "twice, last unknown": [(here, topic, [0]), ("/none/such", topic, [0])],
            "twice, first unknown": [("/none/such", topic, [0]), (here, topic, [0])],
            "some": [(here, topic, [0, 1]), (here, "none-such", [0])],
            "no partitions": [(here, topic, [])],
            "nothing": [],
        }.items():
            t.ask(label, "AlterReplicaLogDirs", version, _alter(*moves))
    _note(t, "nothing has moved", topic)


def moved(t):
    topic, here, there = _of_two(t)
    for value in range(5):
        append(t, topic, batch([b"%d" % value] * 3))
    t.ask("there", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
    _wait("moved", lambda: list(_replicas(t, topic)) == [(there, 0, False)])
    _note(t, "is there", topic)
    append(t, topic, batch([b"after"]))
    t.ask("read", "Fetch", 12, fetch(t, topic))
    t.ask("back", "AlterReplicaLogDirs", 1, _alter((here, topic, [0])))
    _wait("moved back", lambda: list(_replicas(t, topic)) == [(here, 0, False)])
    _note(t, "is here", topic)
    t.ask("ends", "ListOffsets", 7, list_offsets(topic, -1))
    t.ask("epochs", "OffsetForLeaderEpoch", 4, {"topics": [
        {"topic": topic, "partitions": [{"partition": 0, "leaderEpoch": 0}]}]})  # fmt: skip


def moved_after_deletion(t):
    """Moves a log that starts inside a batch. The moved replica knows the producer."""
    topic, here, there = _of_two(t)
    for value in range(3):
        append(t, topic, batch([b"%d" % value] * 4, producer_id=4, producer_epoch=0,
                               sequence=4 * value))  # fmt: skip
    t.call("DeleteRecords", 2, {"timeoutMs": 1000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 6}]}]})  # fmt: skip
    t.ask("there", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
    _wait("moved", lambda: list(_replicas(t, topic)) == [(there, 0, False)])
    t.ask("start", "ListOffsets", 7, list_offsets(topic, -2))
    t.ask("read", "Fetch", 12, fetch(t, topic, partitions=[{
        "partition": 0, "fetchOffset": 6, "partitionMaxBytes": 1 << 20}]))  # fmt: skip
    t.ask("producers", "DescribeProducers", 0,
          {"topics": [{"name": topic, "partitionIndexes": [0]}]})  # fmt: skip
    t.restart()
    t.wait_for(topic, 0)
    t.ask("start, after a restart", "ListOffsets", 7, list_offsets(topic, -2))
    _note(t, "after a restart", topic)


def _fill(t, topic):
    """Appends enough records for a throttle to delay a move."""
    for _ in range(4):
        append(t, topic, batch([os.urandom(900_000)]))


def _is_held_up(t, topic):
    """Whether the throttle holds the move: one batch is copied before the rate is checked again."""
    lags = [lag for (_, _, is_copy), (size, lag) in _replicas(t, topic).items() if is_copy and size]
    return lags == [3]


def held_up(t):
    topic, here, there = _of_two(t)
    _fill(t, topic)
    _limit(t, "1")
    try:
        t.ask("there", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
        _wait("held up", lambda: _is_held_up(t, topic))
        _note(t, "on its way", topic)
        for version in range(1, 6):
            answer = t.call("DescribeLogDirs", version,
                            {"topics": [{"topic": topic, "partitions": [0]}]})  # fmt: skip
            shown = [it for it in answer["results"] if it["logDir"] == there]
            t.note_answer("on its way", "DescribeLogDirs", version, shown)
        t.ask("there again", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
        _note(t, "as before", topic)
        t.ask("an unknown directory", "AlterReplicaLogDirs", 2, _alter(("/none", topic, [0])))
        _note(t, "still as before", topic)
        t.ask("here", "AlterReplicaLogDirs", 2, _alter((here, topic, [0])))
        _note(t, "ended", topic)
    finally:
        _limit(t, None)
    t.ask("anew", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
    _wait("moved", lambda: list(_replicas(t, topic)) == [(there, 0, False)])
    _note(t, "is there", topic)


def deleted_on_the_way(t):
    topic, here, there = _of_two(t)
    _fill(t, topic)
    _limit(t, "1")
    try:
        t.ask("there", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
        _wait("held up", lambda: _is_held_up(t, topic))
        t.call("DeleteTopics", 6, {"topics": [{"name": topic}], "timeoutMs": 5000})
        wait_until_gone(t, topic)
        _wait("gone", lambda: not _replicas(t, topic))
    finally:
        _limit(t, None)
    _note(t, "nothing is left", topic)


def restarted_on_the_way(t):
    topic, here, there = _of_two(t)
    _fill(t, topic)
    _limit(t, "1")
    t.ask("there", "AlterReplicaLogDirs", 2, _alter((there, topic, [0])))
    _wait("held up", lambda: _is_held_up(t, topic))
    t.restart()
    t.wait_for(topic, 0)
    _limit(t, None)
    _wait("moved", lambda: list(_replicas(t, topic)) == [(there, 0, False)])
    _note(t, "is there", topic)


def made_there(t):
    """A request for a partition that does not exist yet decides where it is created."""
    name = f"{t.name.replace(' ', '-')}-later"
    other = _dirs(t)[1]
    t.mask_as(name, "later")
    partitions = list(range(4))
    for label, moves in {
        "unknown": [(_dirs(t)[0], name, partitions)],
        "elsewhere": [(other, name, partitions)],
    }.items():
        t.ask(label, "AlterReplicaLogDirs", 2, _alter(*moves))
    t.call("CreateTopics", 7, {"timeoutMs": 5000, "topics": [
        {"name": name, "numPartitions": 4, "replicationFactor": 1}]})  # fmt: skip
    for partition in partitions:
        t.wait_for(name, partition)
    _note(t, "all are there", name)
