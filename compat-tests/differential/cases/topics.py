"""CreateTopics and DeleteTopics."""

import itertools
import time

from ..records import batch
from ._bodies import append, fetch, list_offsets, produce, wait_until_gone
from ._members import Group

_ZERO_ID = "00000000-0000-0000-0000-000000000000"
_UNKNOWN_ID = "00000000-0000-0000-0000-00000000abcd"


def _create(*topics, **fields):
    listed = [{"numPartitions": 1, "replicationFactor": 1, **it} for it in topics]
    return {"topics": listed, "timeoutMs": 10_000, **fields}


def _ask(t, label, version, body):
    """Sends CreateTopics, and waits until the created topics are available."""
    answer = t.call("CreateTopics", version, body)
    for topic in answer["topics"] if isinstance(answer, dict) else ():
        if topic["errorCode"] == 0 and not body.get("validateOnly"):
            t.learn_topic(topic["name"])
        for config in topic.get("configs") or ():
            config["name"] = f"config {config['name']}"
    t.note_answer(label, "CreateTopics", version, answer)


def create(t):
    for version in range(2, 8):
        name = t.new_name(f"made-{version}")
        one = {"name": name, "numPartitions": 2}
        _ask(t, "validate", version, _create(one, validateOnly=True))
        _ask(t, "make", version, _create(one))
        _ask(t, "again", version, _create(one))
        _ask(t, "validate again", version, _create(one, validateOnly=True))
        other = {"name": t.new_name(f"other-{version}")}
        _ask(t, "some", version, _create(one, other))
        default = {"name": t.new_name(f"default-{version}"), "numPartitions": -1,
                   "replicationFactor": -1}  # fmt: skip
        _ask(t, "defaults", version, _create(default))
        twice = {"name": t.new_name("twice")}
        _ask(t, "twice", version, _create(twice, twice))
        _ask(t, "a name that is none", version, _create({"name": "a b"}))
    _ask(t, "nothing", 7, _create())


def create_odd_names(t):
    for name in ("", ".", "..", "a/b", "é", "x" * 250, "a:b"):
        _ask(t, f"{name[:9]!r} of {len(name)}", 7, _create({"name": name}))
    dotted = t.new_name("dot.made")
    _ask(t, "a dot", 7, _create({"name": dotted}))
    clash = dotted.replace("dot.made", "dot_made")
    t.mask_as(clash, "dot_made")
    _ask(t, "that name with an underscore", 7, _create({"name": clash}))
    one, two = t.new_name("both.a"), t.new_name("x")
    other = one.replace(".", "_")
    t.mask_as(other, "both_a")
    _ask(t, "both in one", 7, _create({"name": one}, {"name": other},
                                      {"name": two}, validateOnly=True))  # fmt: skip
    _ask(t, "null", 7, _create({"name": None}))
    for name in ("__cluster_metadata", "__consumer_offsets"):
        _ask(t, name, 7, _create({"name": name}, validateOnly=True))


def create_counts(t):
    for partitions in (0, -2, 10_001, 2**31 - 1):
        one = {"name": t.new_name(f"p{partitions}"), "numPartitions": partitions}
        _ask(t, f"{partitions} partitions", 7, _create(one, validateOnly=True))
    for factor in (0, -2, 2, 32767):
        one = {"name": t.new_name(f"r{factor}"), "replicationFactor": factor}
        _ask(t, f"{factor} replicas", 7, _create(one))
    many = {"name": t.new_name("many"), "numPartitions": 6000}
    more = {"name": t.new_name("more"), "numPartitions": 6000}
    _ask(t, "too many in all", 7, _create(many, more, validateOnly=True))


def create_assigned(t):
    def ask(label, *assignments, partitions=-1, factor=-1, **fields):
        rows = [{"partitionIndex": index, "brokerIds": brokers} for index, brokers in assignments]
        one = {"name": t.new_name("assigned"), "numPartitions": partitions,
               "replicationFactor": factor, "assignments": rows}  # fmt: skip
        _ask(t, label, 7, _create({**one, **fields}))

    ask("two", (0, [1]), (1, [1]))
    ask("in another order", (1, [1]), (0, [1]))
    ask("a gap", (0, [1]), (2, [1]))
    ask("not from 0", (1, [1]))
    ask("negative", (-1, [1]))
    ask("a partition twice", (0, [1]), (0, [1]))
    ask("an unknown broker", (0, [2]))
    ask("a broker of -1", (0, [-1]))
    ask("a broker twice", (0, [1, 1]))
    ask("no broker", (0, []))
    ask("more and fewer", (0, [1]), (1, [1, 2]))
    ask("with a count", (0, [1]), partitions=1)
    ask("with another count", (0, [1]), partitions=3)
    ask("with a factor", (0, [1]), factor=1)
    ask("with 0", (0, [1]), partitions=0, factor=0)


def create_configured(t):
    def ask(label, *configs, **fields):
        listed = [{"name": key, "value": value} for key, value in configs]
        _ask(t, label, 7, _create({"name": t.new_name("configured"), "configs": listed}, **fields))

    ask("two", ("retention.ms", "5"), ("cleanup.policy", "compact,delete"))
    ask("unknown", ("no.such.key", "1"))
    ask("a word", ("retention.ms", "word"))
    ask("too small", ("retention.ms", "-2"))
    ask("null", ("retention.ms", None))
    ask("empty", ("retention.ms", ""))
    ask("no name", ("", "1"))
    ask("a key twice", ("retention.ms", "1"), ("retention.ms", "2"))
    ask("no policy", ("cleanup.policy", ""))
    ask("a policy twice", ("cleanup.policy", "delete,delete"))
    ask("spaces", ("cleanup.policy", " compact , delete "))
    ask("nonsense", ("cleanup.policy", "compact,nonsense"))
    ask("validate", ("retention.ms", "7"), validateOnly=True)
    ask("validate what is wrong", ("retention.ms", "x"), validateOnly=True)
    ask("a fraction", ("min.cleanable.dirty.ratio", "1.5"))
    ask("a boolean", ("preallocate", "maybe"))
    ask("a boolean in capitals", ("preallocate", "TRUE"))
    ask("spaces round a number", ("retention.ms", " 9 "))
    ask("more in sync than there are", ("min.insync.replicas", "2"))
    ask("none in sync", ("min.insync.replicas", "0"))
    ask("remote storage", ("remote.storage.enable", "true"))
    ask("local more than all", ("retention.ms", "5"), ("local.retention.ms", "6"))
    ask("compression", ("compression.type", "lz5"))
    ask("a level", ("compression.type", "gzip"), ("compression.gzip.level", "99"))
    ask("throttled", ("leader.replication.throttled.replicas", "0:1,x"))
    ask("message format", ("message.format.version", "2.0"))
    ask("segment", ("segment.bytes", "13"))
    ask("lags", ("cleanup.policy", "compact"), ("min.compaction.lag.ms", "9"),
        ("max.compaction.lag.ms", "8"))  # fmt: skip
    ask("a wrong one and a right one", ("retention.ms", "x"), ("segment.ms", "100"))


def delete(t):
    for version in range(1, 7):
        topic, unknown = t.topic(1), t.new_name("unknown")

        def body(*names, version=version):
            if version < 6:
                return {"topicNames": list(names), "timeoutMs": 5000}
            return {"topics": [{"name": it} for it in names], "timeoutMs": 5000}

        t.ask("unknown", "DeleteTopics", version, body(unknown))
        t.ask("twice", "DeleteTopics", version, body(topic, topic))
        t.ask("some", "DeleteTopics", version, body(topic, unknown))
        again = t.topic(1)
        t.ask("one", "DeleteTopics", version, body(again))
        wait_until_gone(t, again)
        t.ask("gone", "DeleteTopics", version, body(again))
        t.ask("nothing", "DeleteTopics", version, body())
        t.ask("names that are none", "DeleteTopics", version, body("", "a b", "x" * 250))


def comes_back(t):
    """A topic is deleted and recreated. Requests with the old id get an error."""
    topic = t.topic(1)
    append(t, topic, batch([b"a", b"b"]))
    old_id = t.id_of(topic)
    group = Group(t).id
    session = t.call("Fetch", 16, fetch(t, topic, 16, sessionEpoch=0))["sessionId"]

    def ask_all(label):
        for version in (3, 9, 12, 13):
            t.ask(label, "Produce", version, produce(t, topic, batch([b"c"]), version))
        for version in (4, 12, 13, 18):
            t.ask(label, "Fetch", version, fetch(t, topic, version))
        for version in (7, 11):
            t.ask(label, "ListOffsets", version, list_offsets(topic, -1))
        t.ask(label, "OffsetForLeaderEpoch", 4, {"topics": [
            {"topic": topic, "partitions": [{"partition": 0, "leaderEpoch": 0}]}]})  # fmt: skip
        t.ask(label, "DeleteRecords", 2, {"timeoutMs": 1000, "topics": [
            {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 0}]}]})  # fmt: skip
        t.ask(label, "DescribeProducers", 0,
              {"topics": [{"name": topic, "partitionIndexes": [0]}]})  # fmt: skip
        rows = [{"partitionIndex": 0, "committedOffset": 1}]
        for version, named in ((9, {"name": topic}), (10, {"topicId": t.id_of(topic)})):
            t.ask(label, "OffsetCommit", version,
                  {"groupId": group, "topics": [{**named, "partitions": rows}]})  # fmt: skip
            t.ask(label, "OffsetFetch", version, {"groups": [
                {"groupId": group, "topics": [{**named, "partitionIndexes": [0]}]}]})  # fmt: skip
        t.ask(label, "Metadata", 12, {"topics": [{"topicId": t.id_of(topic), "name": None}]})
        t.ask(label, "DescribeConfigs", 4, {"resources": [
            {"resourceType": 2, "resourceName": topic, "configurationKeys": ["segment.ms"]}]})  # fmt: skip
        t.ask(label, "DescribeLogDirs", 4,
              {"topics": [{"topic": topic, "partitions": [0]}]})  # fmt: skip
        t.ask(f"{label}, in its session", "Fetch", 16,
              {"maxWaitMs": 0, "sessionId": session, "sessionEpoch": next(epochs)})  # fmt: skip

    epochs = itertools.count(1)
    ask_all("before")
    t.call("DeleteTopics", 6, {"topics": [{"name": topic}], "timeoutMs": 5000})
    wait_until_gone(t, topic)
    time.sleep(0.2)
    ask_all("gone")
    t.call("CreateTopics", 7, _create({"name": topic, "configs": [
        {"name": "segment.ms", "value": "12345"}]}))  # fmt: skip
    t.wait_for(topic, 0)
    ask_all("back, by the old id")
    t.mask_as(old_id, "the old id")
    t.learn_topic(topic)
    ask_all("back, by the new id")


def delete_by_id(t):
    first, second, third = t.topic(1), t.topic(1), t.topic(1)

    def ask(label, *topics):
        t.ask(label, "DeleteTopics", 6, {"topics": list(topics), "timeoutMs": 5000})

    def by_id(name):
        return {"topicId": t.id_of(name)}

    ask("unknown", {"topicId": _UNKNOWN_ID})
    ask("unknown twice", {"topicId": _UNKNOWN_ID}, {"topicId": _UNKNOWN_ID})
    ask("neither", {"name": None, "topicId": _ZERO_ID})
    ask("both", {"name": first, **by_id(first)})
    ask("both, of two", {"name": first, **by_id(second)})
    ask("twice", by_id(first), by_id(first))
    ask("by id and by name", by_id(second), {"name": second})
    ask("by id and another by name", by_id(second), {"name": third})
    wait_until_gone(t, second)
    ask("gone", by_id(second), {"name": third})
    ask("the first is still there", by_id(first))


def requests_without_time(t):
    """The controller must begin a request within `timeoutMs`, so it refuses 0 or less."""
    topic = t.topic(1)
    for timeout_ms in (0, -1):
        time_left = {"timeoutMs": timeout_ms}

        def ask(label, api, version, body, time_left=time_left):
            t.ask(f"{label}, {time_left['timeoutMs']} ms", api, version, {**body, **time_left})

        one = {"numPartitions": 1, "replicationFactor": 1}
        made, twice = ({"name": t.new_name(name), **one} for name in ("made", "twice"))
        ask("create", "CreateTopics", 7, {"topics": [made]})
        ask("create one twice", "CreateTopics", 7, {"topics": [made, twice, twice]})
        ask("validate", "CreateTopics", 7, {"topics": [made], "validateOnly": True})
        ask("grow", "CreatePartitions", 3, {"topics": [{"name": topic, "count": 2}]})
        partitions = [{"topic": topic, "partitions": [0]}]
        ask("elect", "ElectLeaders", 2, {"electionType": 0, "topicPartitions": partitions})
        ask("elect all", "ElectLeaders", 2, {"electionType": 0, "topicPartitions": None})
        moves = [{"name": topic, "partitions": [{"partitionIndex": 0, "replicas": [1]}]}]
        ask("reassign", "AlterPartitionReassignments", 0, {"topics": moves})
        ask("delete", "DeleteTopics", 5, {"topicNames": [topic]})
        ask("delete with an unknown one", "DeleteTopics", 5, {"topicNames": [topic, "no-such"]})
