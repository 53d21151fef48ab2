"""CreatePartitions, ElectLeaders, AlterPartitionReassignments and ListPartitionReassignments."""


def _more(*topics, **fields):
    return {"topics": list(topics), "timeoutMs": 10_000, **fields}


def create(t):
    topic = t.topic(1)
    count = 1
    for version in range(4):
        count += 1
        t.ask("validate", "CreatePartitions", version,
              _more({"name": topic, "count": count, "assignments": None}, validateOnly=True))  # fmt: skip
        t.ask("one more", "CreatePartitions", version,
              _more({"name": topic, "count": count, "assignments": None}))  # fmt: skip
        t.wait_for(topic, count - 1)
        t.ask("as many", "CreatePartitions", version,
              _more({"name": topic, "count": count, "assignments": None}))  # fmt: skip
        t.ask("fewer", "CreatePartitions", version,
              _more({"name": topic, "count": 1, "assignments": None}))  # fmt: skip
    t.ask("after", "Metadata", 9, {"topics": [{"name": topic}]})


def create_refused(t):
    topic, other = t.topic(2), t.topic(1)

    def ask(label, *topics, **fields):
        t.ask(label, "CreatePartitions", 3, _more(*topics, **fields))

    def to(count, name=topic, assignments=None):
        rows = None if assignments is None else [{"brokerIds": it} for it in assignments]
        return {"name": name, "count": count, "assignments": rows}

    for count in (0, -1, 10_003, 2**31 - 1):
        ask(f"to {count}", to(count), validateOnly=True)
    ask("unknown", to(3, t.new_name("unknown")))
    ask("no name", to(3, ""))
    ask("a name that is none", to(3, "a b"))
    ask("internal", to(1, "__cluster_metadata"))
    ask("nothing")
    ask("twice", to(3), to(4))
    ask("twice and another", to(3), to(4), to(2, other), validateOnly=True)
    ask("some", to(1), to(2, other))
    ask("an assignment", to(3, assignments=[[1]]), validateOnly=True)
    ask("too many assignments", to(3, assignments=[[1], [1]]))
    ask("too few assignments", to(4, assignments=[[1]]))
    ask("no assignments", to(3, assignments=[]))
    ask("no replicas", to(3, assignments=[[]]))
    ask("an unknown broker", to(3, assignments=[[2]]))
    ask("a broker twice", to(3, assignments=[[1, 1]]))
    ask("two brokers", to(3, assignments=[[1, 2]]))
    ask("another number of replicas", to(4, assignments=[[1], [1, 2]]))
    ask("assignments to as many", to(2, assignments=[[1]]))
    ask("assignments to fewer", to(1, assignments=[[1]]))
    t.ask("nothing came of it", "Metadata", 9, {"topics": [{"name": topic}]})


def elect_leaders(t):
    topic = t.topic(2)

    def some(name, *partitions):
        return {"topic": name, "partitions": list(partitions)}

    for version in range(3):
        for kind in (0, 1, 2, -1) if version else (0,):
            chosen = [some(topic, 0, 1, 7, -1), some(t.new_name("unknown"), 0), some("", 0)]
            t.ask(f"type {kind}", "ElectLeaders", version,
                  {"electionType": kind, "topicPartitions": chosen})  # fmt: skip
            t.ask(f"type {kind}, nothing", "ElectLeaders", version,
                  {"electionType": kind, "topicPartitions": []})  # fmt: skip
            everything = {"electionType": kind, "topicPartitions": None}
            answer = t.call("ElectLeaders", version, everything)
            # Without the topics of other cases.
            answer["replicaElectionResults"] = [
                it for it in answer["replicaElectionResults"] if it["topic"] == topic
            ]
            t.note_answer(f"type {kind}, everything", "ElectLeaders", version, answer)
    t.ask("no partitions", "ElectLeaders", 2, {"topicPartitions": [some(topic)]})
    t.ask("a partition twice", "ElectLeaders", 2, {"topicPartitions": [some(topic, 0, 0)]})
    t.ask("a topic twice", "ElectLeaders", 2,
          {"topicPartitions": [some(topic, 0), some(topic, 0)]})  # fmt: skip


def list_reassignments(t):
    topic = t.topic(1)

    def ask(label, topics, **fields):
        t.ask(label, "ListPartitionReassignments", 0, {"topics": topics, **fields})

    ask("everything", None)
    ask("nothing", [])
    ask("one", [{"name": topic, "partitionIndexes": [0]}])
    ask("unknown", [{"name": topic, "partitionIndexes": [7]},
                    {"name": t.new_name("unknown"), "partitionIndexes": [0]}])  # fmt: skip
    ask("no partitions", [{"name": topic, "partitionIndexes": []}])
    ask("no time", None, timeoutMs=-1)


def _to(replicas, partition=0):
    return {"partitionIndex": partition, "replicas": replicas}


def reassign(t):
    topic = t.topic(2)

    def ask(label, *partitions, name=topic, **fields):
        body = {"topics": [{"name": name, "partitions": list(partitions)}], **fields}
        t.ask(label, "AlterPartitionReassignments", version, body)

    unknown = t.new_name("unknown")
    for version in range(2):
        ask("where it is", _to([1]))
        ask("where they are", _to([1]), _to([1], 1))
        ask("to an unknown broker", _to([2]))
        ask("to an unknown broker too", _to([1, 2]))
        ask("to a negative broker", _to([-1]))
        ask("to a broker twice", _to([1, 1]))
        ask("to an unknown broker twice", _to([2, 2]))
        ask("to no replicas", _to([]))
        ask("cancel what does not move", _to(None))
        ask("an unknown partition", _to([1], 7), _to(None, 7), _to([1], -1), _to([], 7))
        ask("an unknown topic", _to([1]), _to(None), _to([2], 1), name=unknown)
        ask("no name", _to([1]), name="")
        ask("a name that is none", _to([1]), name="a b")
        ask("internal", _to([1]), name="__cluster_metadata")
        ask("no partitions")
        ask("no partitions of an unknown topic", name=unknown)
        ask("a partition twice", _to([1]), _to([1]))
        ask("a partition in two ways", _to(None), _to([1, 1]))
        ask("some", _to([1]), _to([2], 1), _to([1], 7))
        ask("no time", _to([1]), timeoutMs=-1)
        t.ask("nothing", "AlterPartitionReassignments", version, {"topics": []})
        topics = [{"name": topic, "partitions": [_to([1], it)]} for it in range(2)]
        topics.append({"name": unknown, "partitions": [_to([1])]})
        t.ask("a topic twice", "AlterPartitionReassignments", version, {"topics": topics})
    # Only the last version can forbid a change of the replication factor.
    for label, replicas in {"where it is": [1], "one more": [1, 2], "another": [2],
                            "none": [], "twice": [1, 1], "cancel": None}.items():  # fmt: skip
        ask(f"as many replicas, {label}", _to(replicas), allowReplicationFactorChange=False)
    ask("as many replicas, some", _to([1]), _to([1, 2], 1), allowReplicationFactorChange=False)
    t.ask("nothing moves", "ListPartitionReassignments", 0, {"topics": None})
    t.ask("nothing came of it", "Metadata", 9, {"topics": [{"name": topic}]})
