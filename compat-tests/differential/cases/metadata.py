"""Metadata and DescribeTopicPartitions."""

import time

from ._bodies import wait_until_gone

_UNKNOWN_ID = "00000000-0000-0000-0000-00000000abcd"
_ODD_NAMES = ("", ".", "..", "a b", "a/b", "é", "x" * 249, "x" * 250)
_DEFAULT_ROW_LIMIT = 2000


def _own(t, label, version, body, *topics):
    """Sends Metadata and keeps only the rows of `topics`, without those of other cases."""
    answer = t.call("Metadata", version, body)
    if isinstance(answer, dict):
        answer["topics"] = [it for it in answer["topics"] if it["name"] in topics]
    t.note_answer(label, "Metadata", version, answer)


def _named(*names, create=False, **fields):
    topics = [{"name": name} for name in names]
    return {"topics": topics, "allowAutoTopicCreation": create, **fields}


def all_topics(t):
    topic = t.topic(2)
    _own(t, "empty", 0, {"topics": []}, topic)
    t.ask("null", "Metadata", 0, {"topics": None})
    for version in range(1, 14):
        _own(t, "null", version, {"topics": None}, topic)
        _own(t, "empty", version, {"topics": []}, topic)


def by_name(t):
    topic = t.topic(2)
    for version in range(14):
        unknown = t.new_name("unknown")
        # Before version 4, the request creates missing topics.
        names = (topic,) if version < 4 else (topic, unknown)
        t.ask("names", "Metadata", version, _named(*names))
        t.ask("twice", "Metadata", version, _named(topic, topic))
        operations = {"includeClusterAuthorizedOperations": True,
                      "includeTopicAuthorizedOperations": True}  # fmt: skip
        if version >= 8:
            t.ask("operations", "Metadata", version, _named(topic, unknown, **operations))


def creation(t):
    for version in (0, 1, 3, 4, 5, 9, 12, 13):
        name = t.new_name(f"made-{version}")
        t.ask("first", "Metadata", version, _named(name, create=True))
        t.learn_topic(name)
        t.ask("then", "Metadata", version, _named(name, create=True))
    name = t.new_name("not-made")
    t.ask("not allowed", "Metadata", 4, _named(name))
    time.sleep(0.2)
    t.ask("still not there", "Metadata", 4, _named(name))
    clash = t.new_name("dot.made")
    t.ask("a dot", "Metadata", 9, _named(clash, create=True))
    t.learn_topic(clash)
    other = clash.replace("dot.made", "dot_made")
    t.mask_as(other, "dot_made")
    t.ask("that name with an underscore", "Metadata", 9, _named(other, create=True))
    time.sleep(0.2)
    t.ask("which is not made", "Metadata", 9, _named(other))


def odd_names(t):
    for version in (1, 4, 9, 12, 13):
        for name in _ODD_NAMES:
            create = name != "x" * 249
            if version < 4 and not create:
                continue
            t.ask(f"{name[:9]!r} of {len(name)}", "Metadata", version, _named(name, create=create))
    internal = ("__consumer_offsets", "__transaction_state", "__share_group_state")
    for name in internal[1:]:
        t.ask(name, "Metadata", 9, _named(name))


def internal(t):
    """The topic `__consumer_offsets`, which the first FindCoordinator created."""
    t.find_coordinator("anyone")
    name = "__consumer_offsets"
    t.ask("offsets", "Metadata", 12, _named(name))
    t.ask("offsets", "DescribeTopicPartitions", 0, {"topics": [{"name": name}]})
    keys = ["cleanup.policy", "segment.bytes", "compression.type", "retention.ms"]
    t.ask("offsets", "DescribeConfigs", 4, {"resources": [
        {"resourceType": 2, "resourceName": name, "configurationKeys": keys}]})  # fmt: skip
    t.ask("again", "CreateTopics", 7, {"timeoutMs": 5000, "topics": [
        {"name": name, "numPartitions": 1, "replicationFactor": 1}]})  # fmt: skip


def by_id(t):
    first, second = t.topic(1), t.topic(1)

    def ids(*topics, **fields):
        return {"topics": list(topics), **fields}

    for version in (10, 11, 12, 13):
        one, two = {"topicId": t.id_of(first), "name": None}, {"topicId": t.id_of(second)}
        t.ask("an id", "Metadata", version, ids(one))
        t.ask("two", "Metadata", version, ids(one, {**two, "name": None}))
        t.ask("twice", "Metadata", version, ids(one, one))
        t.ask("unknown", "Metadata", version, ids({"topicId": _UNKNOWN_ID, "name": None}))
        t.ask("id and name", "Metadata", version, ids({**two, "name": second}))
        t.ask("id and another's name", "Metadata", version, ids({**two, "name": first}))
        t.ask("an id, and a name", "Metadata", version, ids(one, {"name": second}))
        t.ask("neither", "Metadata", version, ids({"name": None}))
        t.ask("operations", "Metadata", version,
              ids(one, {"topicId": _UNKNOWN_ID, "name": None},
                  includeTopicAuthorizedOperations=True))  # fmt: skip
    t.call("DeleteTopics", 4, {"topicNames": [second], "timeoutMs": 5000})
    wait_until_gone(t, second)
    t.ask("a deleted topic", "Metadata", 12, ids({"topicId": t.id_of(second), "name": None}))


def names_that_are_null(t):
    for version in (1, 9):
        t.ask("null", "Metadata", version, {"topics": [{"name": None}]})


def describe_topic_partitions(t):
    first, second = t.topic(3), t.topic(2)

    def ask(label, *names, cursor=None, **fields):
        body = {"topics": [{"name": it} for it in names], "cursor": cursor, **fields}
        t.ask(label, "DescribeTopicPartitions", 0, body)

    def at(name, partition):
        return {"topicName": name, "partitionIndex": partition}

    unknown = t.new_name("unknown")
    ask("both", first, second)
    ask("the other way round", second, first)
    ask("twice", first, first)
    ask("unknown", unknown, first)
    for name in _ODD_NAMES:
        ask(f"{name[:9]!r} of {len(name)}", name)
    ask("one of them has no name", first, "")
    for limit in (1, 2, 3, 4, 5, 0, -1, _DEFAULT_ROW_LIMIT, 2**31 - 1):
        ask(f"limit {limit}", first, second, responsePartitionLimit=limit)
    for partition in (0, 1, 2, 3, 9, -1):
        cursor = at(first, partition)
        ask(f"from partition {partition}", first, second, cursor=cursor)
        ask(f"from partition {partition}, limited", first, second, cursor=cursor,
            responsePartitionLimit=1)  # fmt: skip
    ask("from the second", first, second, cursor=at(second, 1))
    ask("from behind", first, cursor=at(second, 0))
    ask("from one not asked for", second, cursor=at(first, 1))
    ask("from one that is unknown", first, second, cursor=at(unknown, 0))
    ask("from one before", first, second, cursor=at("a", 0))
    ask("from no name", first, cursor=at("", 0))
    ask("unknown and limited", first, unknown, responsePartitionLimit=3)
    body = {"topics": [], "cursor": at(first, 1), "responsePartitionLimit": 2}
    t.ask("of all, from the first", "DescribeTopicPartitions", 0, body)
    everything = t.call("DescribeTopicPartitions", 0, {"topics": []})
    everything["topics"] = [it for it in everything["topics"] if it["name"] in (first, second)]
    t.note_answer("of all", "DescribeTopicPartitions", 0, everything)
