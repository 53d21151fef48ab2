"""TxnOffsetCommit, and OffsetFetch while offsets are pending."""

from ._bodies import wait_until_gone
from ._members import Group
from ._transactions import SETTINGS as SHARED
from ._transactions import Held, Producer, ask_states, describe, wait_until

SETTINGS = SHARED


def _body(p, group, topic, *rows, **fields):
    """A TxnOffsetCommit. `rows` are (partition, offset) or (partition, offset, other fields)."""
    partitions = [
        {"partitionIndex": row[0], "committedOffset": row[1], "committedMetadata": "",
         **(row[2] if len(row) > 2 else {})}
        for row in rows
    ]  # fmt: skip
    topics = [{"name": topic, "partitions": partitions}]
    return p.identity(groupId=group, topics=topics, **fields)


def _add(p, group):
    answer = p.t.call("AddOffsetsToTxn", 4, p.identity(groupId=group))
    assert answer["errorCode"] == 0, answer
    return p


def _note(t, label, group, topic=None, stable=(False, True)):
    """Adds the committed offsets to the transcript, with and without require_stable."""
    topics = None if topic is None else [{"name": topic, "partitionIndexes": [0, 1, 2]}]
    for required in stable:
        body = {"groups": [{"groupId": group, "topics": topics}], "requireStable": required}
        t.ask(f"{label}{', stable' if required else ''}", "OffsetFetch", 8, body)


def every_version(t):
    topic = t.topic(3)
    for version in range(6):
        group = Group(t, f"group {version}").id
        p = Producer(t, f"id for {version}")

        def ask(label, *rows, p=p, group=group, version=version, topic=topic, **fields):
            body = _body(p, group, topic, *rows, **fields)
            t.ask(label, "TxnOffsetCommit", version, body)

        ask("not added", (0, 5))
        p.note_state(f"after it, {version}")
        _add(p, group)
        ask("added", (0, 5, {"committedMetadata": "a text"}), (1, 6, {"committedMetadata": None}))
        _note(t, f"pending, {version}", group, topic)
        ask("no partitions")
        ask("unknown partitions", (0, 7), (7, 1), (-1, 1))
        ask("an unknown topic", (0, 7), topic="none-such")
        ask("large metadata", (0, 7), (2, 1, {"committedMetadata": "x" * 4097}))
        ask("negative offsets", (0, -1), (1, -2))
        ask("one twice", (2, 1), (2, 2))
        no_topics = {**_body(p, group, topic), "topics": []}
        t.ask("no topics", "TxnOffsetCommit", version, no_topics)
        for epoch in (-1, 0, 3):
            if version >= 2:
                ask(f"leader epoch {epoch}", (2, 3, {"committedLeaderEpoch": epoch}))
        p.end(version=5 if version >= 5 else 4)
        _note(t, f"committed, {version}", group, topic)
        ask("after the end", (0, 9))
        p.note_state(f"after the end, {version}")
        _note(t, f"after the end, {version}", group, topic)


def refused(t):
    topic = t.topic(1)
    for version in (0, 2, 3, 4, 5):
        group = Group(t, f"group {version}").id
        p = _add(Producer(t, f"id for {version}"), group)

        def ask(label, p=p, group=group, version=version, **fields):
            body = {**_body(p, group, topic, (0, 1)), **fields}
            t.ask(label, "TxnOffsetCommit", version, body)

        ask("no group", groupId="")
        ask("no id", transactionalId="")
        ask("an unknown id", transactionalId=t.new_name("unknown"))
        ask("another producer id", producerId=p.producer_id + 1)
        ask("producer id -1", producerId=-1)
        for epoch in (p.epoch - 1, p.epoch + 1):
            ask(f"epoch {epoch}", producerEpoch=epoch)
        if version >= 3:
            ask("an unknown member", memberId="none-such", generationId=1)
            ask("a generation alone", generationId=1)
            ask("a member alone", memberId="none-such")
            ask("an instance alone", groupInstanceId="none-such")
        _note(t, f"after it, {version}", group, topic)
        p.abort()


def of_members(t):
    """Members are fenced from version 3 on."""
    topic = t.topic(1)
    group = Group(t)
    a, b = group.member("a"), group.member("b", "instance")
    group.gather(a, b)
    p = _add(Producer(t), group.id)
    for version in (2, 3, 4, 5):
        def ask(label, version=version, **fields):
            body = {**_body(p, group.id, topic, (0, version)), **fields}
            t.ask(label, "TxnOffsetCommit", version, body)

        if version < 3:
            ask("without a member")
            continue
        mine = {"memberId": a.member_id, "generationId": a.generation}
        static = {"memberId": b.member_id, "generationId": b.generation,
                  "groupInstanceId": "instance"}  # fmt: skip
        ask("of a member", **mine)
        ask("of a static member", **static)
        ask("without a member")
        for change in (-1, 1):
            generation = a.generation + change
            ask(f"generation {change:+}", **{**mine, "generationId": generation})
        ask("no generation", **{**mine, "generationId": -1})
        ask("an unknown member", **{**mine, "memberId": "none-such"})
        ask("no member", **{**mine, "memberId": ""})
        ask("another instance", **{**static, "groupInstanceId": "other"})
        ask("the instance of another member", **{**static, "memberId": a.member_id})
        ask("an instance without a member", groupInstanceId="instance")
    c = group.member("c")
    c.send_join(3)
    group.wait("PreparingRebalance")
    body = _body(p, group.id, topic, (0, 9), memberId=a.member_id, generationId=a.generation)
    t.ask("during a rebalance", "TxnOffsetCommit", 3, body)
    _note(t, "pending", group.id, topic)
    p.end()
    _note(t, "committed", group.id, topic)


def ends(t):
    """Pending offsets show after a commit, and an abort drops them."""
    topic = t.topic(3)
    for version in (4, 5):
        group = Group(t, f"group {version}").id
        p, q = Producer(t, f"a{version}"), Producer(t, f"b{version}")

        def commit(p, *rows, version=version, group=group):
            if version < 5:
                _add(p, group)
            answer = t.call("TxnOffsetCommit", version, _body(p, group, topic, *rows))
            for partition in answer["topics"][0]["partitions"]:
                assert partition["errorCode"] == 0, answer

        def plain(label, *rows, group=group):
            partitions = [{"partitionIndex": at, "committedOffset": offset} for at, offset in rows]
            body = {"groupId": group, "topics": [{"name": topic, "partitions": partitions}]}
            t.ask(label, "OffsetCommit", 8, body)

        commit(p, (0, 10), (1, 11))
        _note(t, f"pending, {version}", group, topic)
        _note(t, f"pending, everything, {version}", group)
        p.end(False, version)
        _note(t, f"aborted, {version}", group, topic)
        commit(p, (0, 20), (1, 21))
        commit(q, (1, 31), (2, 32))
        _note(t, f"two pending, {version}", group, topic)
        p.end(True, version)
        _note(t, f"one is committed, {version}", group, topic)
        q.end(False, version)
        _note(t, f"the other is aborted, {version}", group, topic)
        commit(p, (0, 40), (1, 41))
        plain(f"a plain commit beside it, {version}", (0, 50))
        _note(t, f"a plain commit is newer, {version}", group, topic)
        p.end(True, version)
        _note(t, f"after a plain commit, {version}", group, topic)
        commit(p, (0, 60))
        commit(q, (0, 70))
        q.end(True, version)
        p.end(True, version)
        _note(t, f"committed in another order, {version}", group, topic)
        plain(f"a plain commit before, {version}", (2, 80))
        commit(p, (2, 81))
        _note(t, f"one is there, one is pending, {version}", group, topic)
        p.end(False, version)
        _note(t, f"the one before, {version}", group, topic)


def require_stable(t):
    """Every version that has require_stable, for chosen partitions and for all."""
    topic = t.topic(2)
    held = Held(t)
    group = Group(t).id
    p = _add(Producer(t).add((held.topic, 0)), group)
    t.call("TxnOffsetCommit", 3, _body(p, group, topic, (0, 5)))

    def look(label):
        for version in range(7, 11):
            named = {"topicId": t.id_of(topic)} if version >= 10 else {"name": topic}
            wanted = [{**named, "partitionIndexes": [0, 1]}]
            for topics, name in ((wanted, "two"), (None, "all")):
                of = {"groupId": group, "topics": topics}
                body = of if version == 7 else {"groups": [of]}
                t.ask(f"{label}, {name}", "OffsetFetch", version, {**body, "requireStable": True})

    look("open")
    p.end(is_complete=False)
    wait_until("the offsets are committed", lambda: len(describe(t, p.id)["topics"]) == 1)
    ask_states(t, "while the other marker waits", p.id)
    held.release()
    p.wait("CompleteCommit")
    look("committed")


def offsets_go(t):
    """Pending offsets of deleted topics, of deleted offsets, and of a deleted group."""
    topic, gone = t.topic(1), t.topic(1)
    group = Group(t).id
    p = _add(Producer(t), group)
    for name in (topic, gone):
        answer = t.call("TxnOffsetCommit", 3, _body(p, group, name, (0, 5)))
        assert answer["topics"][0]["partitions"][0]["errorCode"] == 0, answer
    t.ask("delete the group", "DeleteGroups", 2, {"groupsNames": [group]})
    _note(t, "the group is there", group, topic)
    topics = [{"name": topic, "partitions": [{"partitionIndex": 0}]}]
    t.ask("delete the offset", "OffsetDelete", 0, {"groupId": group, "topics": topics})
    _note(t, "the offset is deleted", group, topic)
    t.call("DeleteTopics", 6, {"topics": [{"name": gone}], "timeoutMs": 5000})
    wait_until_gone(t, gone)
    p.end()
    _note(t, "committed", group, topic)
    _note(t, "everything", group, stable=(False,))
    t.ask("delete the group after the end", "DeleteGroups", 2, {"groupsNames": [group]})


def restart(t):
    """Pending offsets are still pending after a restart."""
    topic = t.topic(3)
    group = Group(t).id
    p, q = Producer(t, "a"), Producer(t, "b")
    for it, offset in ((p, 5), (q, 6)):
        _add(it, group)
        t.call("TxnOffsetCommit", 3, _body(it, group, topic, (offset - 5, offset)))
    t.restart()
    t.wait_for(topic, 0)
    t.find_coordinator(group)
    _note(t, "pending", group, topic)
    for it in (p, q):
        it.wait("Ongoing")
    p.end()
    q.abort()
    _note(t, "ended", group, topic)
