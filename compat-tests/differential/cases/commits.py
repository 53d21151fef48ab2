"""OffsetCommit, OffsetFetch and OffsetDelete."""

from ._bodies import wait_until_gone
from ._members import Group, subscription

_UNKNOWN_ID = "00000000-0000-0000-0000-00000000abcd"


def _commit(t, group, topic, version, *rows, **fields):
    """The body of an OffsetCommit. `rows` are (partition, offset, other fields)."""
    partitions = [
        {"partitionIndex": partition, "committedOffset": offset, **more}
        for partition, offset, more in rows
    ]
    named = {"topicId": t.id_of(topic)} if version >= 10 else {"name": topic}
    return {"groupId": group, "topics": [{**named, "partitions": partitions}], **fields}


def _fetch(t, group, version, *wanted, **fields):
    topics = [
        {**({"topicId": t.id_of(name)} if version >= 10 else {"name": name}),
         "partitionIndexes": partitions}
        for name, partitions in wanted
    ]  # fmt: skip
    if version >= 8:
        return {"groups": [{"groupId": group, "topics": topics}], **fields}
    return {"groupId": group, "topics": topics, **fields}


def commit_and_fetch(t):
    topic = t.topic(3)
    group = Group(t).id
    for version in range(2, 11):
        rows = (0, version, {"committedMetadata": f"version {version}"}), (1, version, {})
        t.ask("commit", "OffsetCommit", version, _commit(t, group, topic, version, *rows))
        t.ask(f"after {version}", "OffsetFetch", 8,
              _fetch(t, group, 8, (topic, [0, 1, 2])))  # fmt: skip
    for version in range(1, 11):
        t.ask("fetch", "OffsetFetch", version, _fetch(t, group, version, (topic, [0, 2, 7, -1])))
        t.ask("nothing", "OffsetFetch", version, _fetch(t, group, version))
        t.ask("no partitions", "OffsetFetch", version, _fetch(t, group, version, (topic, [])))
        everything = {"groupId": group, "topics": None}
        everything = {"groups": [everything]} if version >= 8 else everything
        t.ask("everything", "OffsetFetch", version, everything)
        t.ask("unknown group", "OffsetFetch", version,
              _fetch(t, t.new_name("unknown"), version, (topic, [0])))  # fmt: skip
        t.ask("no group id", "OffsetFetch", version, _fetch(t, "", version, (topic, [0])))


def metadata(t):
    topic = t.topic(1)
    group = Group(t).id
    texts = {"null": None, "empty": "", "just fits": "x" * 4096, "too large": "x" * 4097,
             "two bytes a letter": "é" * 2049, "two bytes, too many": "é" * 4097}  # fmt: skip
    for label, text in texts.items():
        for version in (2, 7, 8, 10):
            body = _commit(t, group, topic, version, (0, 1, {"committedMetadata": text}))
            t.ask(label, "OffsetCommit", version, body)
        answer = t.call("OffsetFetch", 8, _fetch(t, group, 8, (topic, [0])))
        kept = answer["groups"][0]["topics"][0]["partitions"][0]["metadata"]
        t.note(f"{label} is kept as", [kept[:9], len(kept)])
    old = t.call("OffsetFetch", 1, _fetch(t, group, 1, (topic, [0])))
    t.note("in an old version", len(old["topics"][0]["partitions"][0]["metadata"]))


def offsets_and_epochs(t):
    topic = t.topic(1)
    group = Group(t).id
    for offset in (0, 7, -1, -2, 2**63 - 1, -(2**63)):
        for version in (2, 8):
            body = _commit(t, group, topic, version, (0, offset, {}))
            t.ask(f"offset {offset}", "OffsetCommit", version, body)
            t.ask(f"offset {offset} of {version}", "OffsetFetch", 8,
                  _fetch(t, group, 8, (topic, [0])))  # fmt: skip
    for epoch in (0, 5, -1, -2, 2**31 - 1):
        for version in (6, 9, 10):
            row = (0, 3, {"committedLeaderEpoch": epoch})
            t.ask(f"epoch {epoch}", "OffsetCommit", version, _commit(t, group, topic, version, row))
        for version in (4, 5, 7, 8, 10):
            t.ask(f"epoch {epoch}", "OffsetFetch", version,
                  _fetch(t, group, version, (topic, [0])))  # fmt: skip
    t.ask("without an epoch", "OffsetCommit", 5, _commit(t, group, topic, 5, (0, 4, {})))
    t.ask("the epoch is gone", "OffsetFetch", 8, _fetch(t, group, 8, (topic, [0])))


def commit_refused(t):
    topic = t.topic(2)
    group = Group(t).id
    for version in (2, 5, 8, 9, 10):
        rows = [(0, 1, {}), (7, 1, {}), (-1, 1, {}), (0, 2, {})]
        t.ask("unknown partitions", "OffsetCommit", version,
              _commit(t, group, topic, version, *rows))  # fmt: skip
        t.ask("unknown alone", "OffsetCommit", version,
              _commit(t, group, topic, version, (7, 1, {})))  # fmt: skip
        row = {"partitions": [{"partitionIndex": 0, "committedOffset": 1}]}
        good = {"topicId": t.id_of(topic)} if version >= 10 else {"name": topic}
        bad = {"topicId": _UNKNOWN_ID} if version >= 10 else {"name": "none-such"}
        for label, topics in {
            "an unknown topic": [{**bad, **row}],
            "one of them unknown": [{**bad, **row}, {**good, **row}],
            "a topic twice": [{**good, **row}, {**good, **row}],
            "no topics": [],
            "no partitions": [{**good, "partitions": []}],
            "no partitions of an unknown topic": [{**bad, "partitions": []}],
            "no partitions and some": [{**good, "partitions": []}, {**good, **row}, bad],
            "a name that is none": [{**row, "name": "a b"}] if version < 10 else [row],
        }.items():
            t.ask(label, "OffsetCommit", version, {"groupId": group, "topics": topics})
        for generation, member in ((0, ""), (5, ""), (-1, "nobody"), (5, "nobody"), (-2, "")):
            who = {"generationIdOrMemberEpoch": generation, "memberId": member}
            label = f"generation {generation}, member {member!r}"
            t.ask(label, "OffsetCommit", version,
                  _commit(t, group, topic, version, (0, 1, {}), **who))  # fmt: skip
            nobody = t.new_name(f"unknown{generation}")
            t.ask(f"{label}, no group", "OffsetCommit", version,
                  _commit(t, nobody, topic, version, (0, 1, {}), **who))  # fmt: skip
        t.ask("no group id", "OffsetCommit", version, _commit(t, "", topic, version, (0, 1, {})))


def fetch_many(t):
    first, second = t.topic(2), t.topic(1)
    one, two = Group(t, "one").id, Group(t, "two").id
    t.call("OffsetCommit", 8, _commit(t, one, first, 8, (0, 1, {}), (1, 2, {})))
    t.call("OffsetCommit", 8, _commit(t, two, second, 8, (0, 3, {})))
    wanted = [{"name": first, "partitionIndexes": [0, 1]}]

    def ask(label, version, *groups, **fields):
        t.ask(label, "OffsetFetch", version, {"groups": list(groups), **fields})

    for version in (8, 9):
        ask("two groups", version, {"groupId": one, "topics": wanted},
            {"groupId": two, "topics": None}, {"groupId": "unknown", "topics": None})  # fmt: skip
        ask("twice", version, {"groupId": one, "topics": wanted}, {"groupId": one, "topics": []})
        ask("no groups", version)
        ask("a partition twice", version,
            {"groupId": one, "topics": [{"name": first, "partitionIndexes": [0, 0]}]})  # fmt: skip
        ask("a topic twice", version, {"groupId": one, "topics": wanted * 2})
        ask("an unknown topic", version,
            {"groupId": one, "topics": [{"name": "none-such", "partitionIndexes": [0]}]})  # fmt: skip
        ask("a name that is none", version,
            {"groupId": one, "topics": [{"name": "a b", "partitionIndexes": [0]}]})  # fmt: skip
    for stable in (False, True):
        ask(f"stable {stable}", 9, {"groupId": one, "topics": wanted}, requireStable=stable)
    for member, epoch in (("nobody", 0), ("nobody", -1), (None, 0), ("", 0), (None, -2)):
        who = {"memberId": member, "memberEpoch": epoch}
        for version in (9, 10):
            named = {"topicId": t.id_of(first)} if version >= 10 else {"name": first}
            ask(f"member {member!r}, epoch {epoch}", version,
                {"groupId": one, "topics": [{**named, "partitionIndexes": [0]}], **who})  # fmt: skip
            ask(f"member {member!r}, epoch {epoch}, all", version,
                {"groupId": one, "topics": None, **who})  # fmt: skip
            ask(f"member {member!r}, epoch {epoch}, no group", version,
                {"groupId": "unknown", "topics": None, **who})  # fmt: skip
    unknown = {"topicId": _UNKNOWN_ID, "partitionIndexes": [0, 1]}
    known = {"topicId": t.id_of(first), "partitionIndexes": [0]}
    ask("an unknown id", 10, {"groupId": one, "topics": [unknown]})
    ask("an unknown id and a known", 10, {"groupId": one, "topics": [unknown, known]})
    ask("no id", 10, {"groupId": one, "topics": [{"partitionIndexes": [0]}]})
    ask("everything", 10, {"groupId": one, "topics": None})


def fetch_as_member(t):
    topic = t.topic(1)
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a)
    a.commit("stable", topic)
    wanted = [{"name": topic, "partitionIndexes": [0]}]
    for label, member, epoch in (
        ("its generation", a.member_id, a.generation),
        ("another generation", a.member_id, 9),
        ("an unknown member", "nobody", a.generation),
        ("no member", None, -1),
        ("a generation alone", None, a.generation),
    ):
        who = {"memberId": member, "memberEpoch": epoch}
        t.ask(label, "OffsetFetch", 9, {"groups": [
            {"groupId": group.id, "topics": wanted, **who}]})  # fmt: skip
    b.send_join(3)
    group.wait("PreparingRebalance")
    t.ask("while preparing", "OffsetFetch", 7, _fetch(t, group.id, 7, (topic, [0])))


def topics_come_and_go(t):
    topic = t.topic(1)
    group = Group(t).id
    t.call("OffsetCommit", 9, _commit(t, group, topic, 9, (0, 5, {})))
    t.ask("committed", "OffsetFetch", 9, _fetch(t, group, 9, (topic, [0])))
    t.call("DeleteTopics", 4, {"topicNames": [topic], "timeoutMs": 5000})
    wait_until_gone(t, topic)
    t.settle()
    t.ask("the topic is gone", "OffsetFetch", 9, _fetch(t, group, 9, (topic, [0])))
    t.ask("the topic is gone, by id", "OffsetFetch", 10, _fetch(t, group, 10, (topic, [0])))
    t.ask("the topic is gone, all", "OffsetFetch", 9,
          {"groups": [{"groupId": group, "topics": None}]})  # fmt: skip
    t.ask("to a topic that is gone", "OffsetCommit", 9, _commit(t, group, topic, 9, (0, 6, {})))
    t.ask("to an id that is gone", "OffsetCommit", 10, _commit(t, group, topic, 10, (0, 6, {})))


def delete_offsets(t):
    first, second = t.topic(2), t.topic(1)
    group = Group(t)
    t.call("OffsetCommit", 9, _commit(t, group.id, first, 9, (0, 1, {}), (1, 1, {})))
    t.call("OffsetCommit", 9, _commit(t, group.id, second, 9, (0, 1, {})))

    def ask(label, *wanted, group=group):
        topics = [{"name": name, "partitions": [{"partitionIndex": it} for it in partitions]}
                  for name, partitions in wanted]  # fmt: skip
        t.ask(label, "OffsetDelete", 0, {"groupId": group.id, "topics": topics})

    nobody = Group(t, "unknown")
    ask("unknown group", (first, [0]), group=nobody)
    ask("nothing of an unknown group", group=nobody)
    ask("nothing")
    ask("no partitions", (first, []))
    ask("no partitions and some", ("none-such", []), (second, []), (first, [7]))
    ask("unknown partitions", (first, [7, -1]), ("none-such", [0]))
    ask("one", (first, [0]))
    ask("again", (first, [0]))
    ask("twice", (first, [1, 1]), (first, [1]))
    t.ask("what is left", "OffsetFetch", 8, {"groups": [{"groupId": group.id, "topics": None}]})
    a = group.member("a")
    group.gather(a, protocols={"range": subscription(first)})
    a.commit("stable", first)
    ask("subscribed to the one", (first, [0]), (second, [0]))
    ask("subscribed to the one, no partitions", (first, []), (second, []))
    t.ask("the other is gone", "OffsetFetch", 8,
          {"groups": [{"groupId": group.id, "topics": None}]})  # fmt: skip
    a.leave()
    ask("subscribed no more", (first, [0]))
    other = Group(t, "connect")
    c = other.member("c")
    c.join(None, 3, {"x": b"y"}, protocolType="connect")
    c.sync(None, 0)
    c.commit("of another type", first)
    ask("not a group of consumers", (first, [0]), group=other)
    unreadable = Group(t, "unreadable")
    d = unreadable.member("d")
    d.join(None, 3, {"range": b""})
    d.sync(None, 0)
    d.commit("of an unreadable subscription", first)
    ask("a subscription that cannot be read", (first, [0]), group=unreadable)
