"""Members of the classic protocol in consumer groups (KIP-848)."""

import time

from ._consumers import counted, topic
from ._mixed import MixedGroup, reconcile, subscription

SETTINGS = {
    "group_consumer_max_size": "3",
    "group_consumer_assignment_interval_ms": "0",
    "group_consumer_min_session_timeout_ms": "500",
    "group_consumer_min_heartbeat_interval_ms": "100",
}
_SOON_MS = 600
_LATER_S = 1.2


def _with_consumer(t, name, partitions=1, label="group"):
    """A group with one member of the consumer protocol, which has all partitions."""
    group = MixedGroup(t, label)
    m = group.consumer("m", name)
    m.join()
    return group, m


def joins(t):
    name = topic(t, 2)
    for version in range(10):
        group, m = _with_consumer(t, name, label=f"group-{version}")
        a = group.classic("a", name)
        a.shows = counted
        a.enter(f"joins {version}", version)
        a.sync(f"has to wait {version}", min(version, 5))
        a.heartbeat(f"waits {version}", min(version, 4))
        group.describe_consumers(f"two {version}", shows=counted)
        group.describe(f"two {version}", 5)
        m.ask(f"has to give up one {version}", shows=counted, topicPartitions=m.owning())
        a.heartbeat(f"still waits {version}", min(version, 4))
        m.ask(f"has given up one {version}", shows=counted, topicPartitions=m.owning())
        a.heartbeat(f"may get one {version}", min(version, 4))
        a.sync(f"before it has joined again {version}", min(version, 5))
        a.enter(f"joins again {version}", version)
        a.heartbeat(f"before it has synced {version}", min(version, 4))
        a.sync(f"gets one {version}", min(version, 5))
        a.heartbeat(f"has one {version}", min(version, 4))
        group.describe_consumers(f"settled {version}", shows=counted)
        a.leaves(f"leaves {version}", min(version, 5))
        a.heartbeat(f"after it left {version}", min(version, 4))
        m.leave()


def gives_up(t):
    """A classic member gives up partitions before it enters the next epoch."""
    name = topic(t, 6)
    for version in (0, 1, 2, 3):
        group, m = _with_consumer(t, name, label=f"group-{version}")
        a = group.classic("a", name)
        a.shows = counted
        a.enter()
        a.sync()
        reconcile(m, a, partitions=6)
        n = group.consumer("n", name)
        n.join(f"joins {version}", shows=counted)
        a.heartbeat(f"told to join {version}")
        a.sync(f"old generation {version}")
        before = a.owned
        # In version 0, there are no owned partitions: the member has given up all.
        a.enter(f"joins {version}", protocols=a.subscribing(version=version))
        a.sync(f"has to give up one {version}")
        a.heartbeat(f"told to join again {version}")
        group.describe_consumers(f"while it owns all {version}", shows=counted)
        a.enter(f"owns all {version}", protocols=a.subscribing(version=version, owned=before))
        a.sync(f"owns all {version}")
        a.enter(f"has given up {version}", protocols=a.subscribing(version=version))
        a.sync(f"has given up {version}")
        reconcile(m, n, a, partitions=6)
        group.describe_consumers(f"settled {version}", shows=counted)
        a.leaves(f"leaves {version}")
        reconcile(m, n, partitions=6)
        n.leave()
        m.leave()


def subscriptions(t):
    """The assignment has the version of the subscription."""
    name, other = topic(t, 1), topic(t, 1)
    group, m = _with_consumer(t, name)
    a = group.classic("a", other)
    for version in (0, 1, 2, 3):
        a.enter(f"joins with version {version}", protocols=a.subscribing(version=version, rack="r"))
        a.sync(f"gets version {version}")
        group.describe_consumers(f"version {version}")
    data = subscription([other]) + b"more"
    a.enter("bytes after it", protocols={"range": data})
    a.sync("bytes after it")
    data = b"\0\x09" + subscription([other])[2:]
    a.enter("a version to come", protocols={"range": data})
    a.sync("a version to come")
    for label, data in {
        "a negative version": b"\xff\xff" + subscription([other])[2:],
        "nothing": b"",
        "a version only": b"\0\x03",
        "cut": subscription([other])[:-3],
        "too many topics": b"\0\0\x7f\xff\xff\xff",
        "null topics": b"\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    }.items():
        a.join(label, protocols={"range": data})
        a.join(f"{label}, second", protocols={"range": subscription([other]), "other": data})
    a.enter("no topics", protocols={"range": subscription([])})
    a.sync("no topics")
    a.enter("twice the same topic", protocols={"range": subscription([other, other])})
    a.sync("twice the same topic")
    a.enter("topics that do not exist", protocols={"range": subscription(["none", other, ""])})
    a.sync("topics that do not exist")
    group.describe_consumers("topics that do not exist")
    a.enter("owns what does not exist",
            protocols={"range": subscription([other], {"none": [1], other: [0, 7, -1]})})  # fmt: skip
    a.sync("owns what does not exist")
    a.enter("an empty rack", protocols={"range": subscription([other], rack="")})
    group.describe_consumers("an empty rack")
    a.enter("another rack", protocols={"range": subscription([other], rack="s")})
    group.describe_consumers("another rack")


def protocols(t):
    name = topic(t, 1)
    group, m = _with_consumer(t, name)
    a, b = group.classic("a", name), group.classic("b", name)
    for version in (3, 4, 9):
        for label, fields in {
            "another type": {"protocolType": "connect"},
            "no type": {"protocolType": ""},
            "a capital type": {"protocolType": "Consumer"},
        }.items():
            a.join(f"{label} {version}", version, a.subscribing(), **fields)
        a.join(f"no protocols {version}", version, {})
    a.enter("supports two", protocols=a.subscribing("range", "roundrobin"))
    b.enter("supports another one", protocols=b.subscribing("sticky"))
    b.enter("supports one of them", protocols=b.subscribing("sticky", "roundrobin"))
    b.sync("with the first one", protocolName="sticky")
    b.sync("with the second one", protocolName="roundrobin")
    b.sync("with another type", protocolType="connect", protocolName="sticky")
    b.sync("without names", 4)
    a.enter("only supports the other one", protocols=a.subscribing("range"))
    a.enter("supports both", protocols=a.subscribing("roundrobin", "range"))
    group.describe_consumers("then")
    b.leaves("leaves")
    a.enter("alone it may change", protocols=a.subscribing("range"))
    a.sync("alone it may change")
    a.enter("names one twice", protocols=a.subscribing("range", "range"))


def fencing(t):
    name = topic(t, 1)
    group, m = _with_consumer(t, name)
    a, b = group.classic("a", name), group.classic("b", name, instance_id="i")
    a.enter()
    b.enter()
    for member in (a, b):
        for version in (0, 3, 4):
            if member is b and version < 3:
                continue
            for label, fields in {
                "itself": {},
                "the next generation": {"generationId": member.generation + 1},
                "the one before": {"generationId": member.generation - 1},
                "no generation": {"generationId": -1},
                "an unknown member": {"memberId": "nobody"},
                "no member": {"memberId": ""},
                "a consumer member": {"memberId": "m", "generationId": m.epoch},
            }.items():
                member.heartbeat(f"heartbeat of {label}", version, **fields)
                member.sync(f"sync of {label}", version + 1, **fields)
    for label, fields in {
        "an instance id": {"groupInstanceId": "i"},
        "an unknown instance id": {"groupInstanceId": "j"},
        "no instance id": {"groupInstanceId": None},
    }.items():
        for member in (a, b):
            member.heartbeat(f"heartbeat with {label}", **fields)
            member.sync(f"sync with {label}", **fields)
            member.join(f"join with {label}", protocols=member.subscribing(), **fields)
    group.describe_consumers("then")


def ids(t):
    """A member may join with an id that the coordinator does not know. It may change its protocol."""
    name = topic(t, 1)
    group, m = _with_consumer(t, name)
    a = group.classic("a", name)
    a.member_id = "made up"
    a.enter("with an id of its own")
    group.describe_consumers("an id of its own")
    a.member_id = "m"
    a.enter("as the consumer member")
    group.describe_consumers("both are classic")
    m.ask("is classic now", memberEpoch=a.generation)
    group.describe_consumers("it has changed its protocol")


def static_members(t):
    name = topic(t, 2)
    for version in (5, 9):
        group, m = _with_consumer(t, name, label=f"group-{version}")
        a, b = (group.classic(it, name, instance_id="i") for it in ("a", "b"))
        a.enter(f"joins {version}", version)
        m.call(topicPartitions=m.owning())
        m.call(topicPartitions=m.owning())
        a.enter(f"gets one {version}", version)
        a.shows = b.shows = counted
        a.sync(f"has one {version}")
        b.enter(f"takes the place of a classic one {version}", version)
        b.sync(f"has its partition {version}")
        group.describe_consumers(f"classic to classic {version}", shows=counted)
        a.heartbeat(f"replaced {version}")
        a.sync(f"replaced {version}")
        a.join(f"replaced {version}", version, a.subscribing())
        c = group.consumer("c", name, instanceId="i")
        c.join(f"takes the place of a classic one {version}", shows=counted)
        group.describe_consumers(f"classic to consumer {version}", shows=counted)
        b.heartbeat(f"replaced {version}")
        d = group.classic("d", name, instance_id="i")
        d.shows = counted
        d.enter(f"takes the place of a consumer {version}", version)
        d.sync(f"takes the place of a consumer {version}")
        group.describe_consumers(f"consumer to classic {version}", shows=counted)
        c.ask(f"replaced {version}", shows=counted)
        c.leave(f"replaced, leaves {version}")
        c.leave(f"replaced, leaves for a while {version}", epoch=-2)
        e = group.consumer("e", name, instanceId="i")
        e.join()
        e.leave(f"leaves for a while {version}", epoch=-2)
        d.enter(f"after it left {version}", version)
        d.member_id = ""
        d.enter(f"anew after it left {version}", version)
        d.sync(f"anew after it left {version}")
        other = group.classic("other", name, "more", instance_id="i")
        other.shows = counted
        other.enter(f"with another subscription {version}", version)
        group.describe_consumers(f"another subscription {version}", shows=counted)
        unknown = group.classic("unknown", name, instance_id="k")
        unknown.member_id = "nobody"
        unknown.join(f"with an id but unknown {version}", version, unknown.subscribing())
        other.leaves(f"leaves {version}")
        group.describe_consumers(f"left {version}", shows=counted)
        m.leave()


def too_many(t):
    name = topic(t, 1)
    group, m = _with_consumer(t, name)
    a, b, c = (group.classic(it, name, instance_id=i) for it, i in (("a", None), ("b", "i"), ("c", None)))
    a.enter()
    b.enter()
    for version in (3, 4, 9):
        c.join(f"a fourth {version}", version, c.subscribing())
    c.member_id = "some id"
    c.join("a fourth with an id", protocols=c.subscribing())
    a.enter("a member joins again")
    d = group.classic("d", name, instance_id="i")
    d.join("a successor", protocols=d.subscribing())
    a.leaves("leaves")
    c.enter("there is room")


def leaves(t):
    name = topic(t, 1)
    for version in range(6):
        group, m = _with_consumer(t, name, label=f"group-{version}")
        a, b = group.classic("a", name), group.classic("b", name, instance_id="i")
        a.enter()
        b.enter()
        if version >= 3:
            a.leave(f"several {version}", version, members=[
                {"memberId": "nobody"},
                {"memberId": a.member_id, "groupInstanceId": "i"},
                {"memberId": a.member_id, "groupInstanceId": "j"},
                {"memberId": "", "groupInstanceId": "i"},
                {"memberId": a.member_id},
                {"memberId": a.member_id},
            ])  # fmt: skip
        else:
            a.leave(f"leaves {version}", version)
            a.leave(f"again {version}", version)
        group.describe_consumers(f"left {version}")
        m.leave()


def commits(t):
    name = topic(t, 2)
    group, m = _with_consumer(t, name)
    a = group.classic("a", name)
    a.enter()
    reconcile(m, a, partitions=2)
    epochs = {"its generation": a.generation, "the next": a.generation + 1,
              "the one before": a.generation - 1, "none": -1, "less than none": -2}  # fmt: skip
    (own,) = a.owned[name]

    def commit(label, version, member, epoch, partition):
        named = {"topicId": t.id_of(name)} if version >= 10 else {"name": name}
        body = {"groupId": group.id, "memberId": member, "generationIdOrMemberEpoch": epoch,
                "topics": [{**named, "partitions": [
                    {"partitionIndex": partition, "committedOffset": 1}]}]}  # fmt: skip
        answer = t.call("OffsetCommit", version, body)
        for it in answer["topics"]:
            for part in it["partitions"]:
                part["partitionIndex"] = "own" if part["partitionIndex"] == own else "other"
        t.note_answer(label, "OffsetCommit", version, answer)

    for version in (2, 7, 8, 9, 10):
        for member in (a.member_id, "nobody", ""):
            for label, epoch in epochs.items():
                for partition in (own, 1 - own):
                    what = "own" if partition == own else "other"
                    who = "itself" if member == a.member_id else repr(member)
                    commit(f"{what} as {who}, {label}", version, member, epoch, partition)
    for version in (8, 9, 10):
        named = {"topicId": t.id_of(name)} if version >= 10 else {"name": name}
        for member in (a.member_id, "nobody", None):
            for label, epoch in epochs.items():
                who = {"memberId": member, "memberEpoch": epoch} if version >= 9 else {}
                asked = {"groupId": group.id, "topics": [{**named, "partitionIndexes": [own]}], **who}
                answer = t.call("OffsetFetch", version, {"groups": [asked]})
                for it in answer["groups"][0]["topics"]:
                    for part in it["partitions"]:
                        part["partitionIndex"] = "own"
                shown = "itself" if member == a.member_id else repr(member)
                t.note_answer(f"fetch as {shown}, {label}", "OffsetFetch", version, answer)
    for label, epoch in epochs.items():
        for member in (a.member_id, "nobody", ""):
            who = "itself" if member == a.member_id else repr(member)
            asked = {"transactionalId": t.new_name("txn"), "groupId": group.id, "producerId": 1,
                     "producerEpoch": 0, "generationId": epoch, "memberId": member, "topics": [
                         {"name": name, "partitions": [
                             {"partitionIndex": own, "committedOffset": 1}]}]}  # fmt: skip
            answer = t.call("TxnOffsetCommit", 3, asked)
            for it in answer["topics"]:
                for part in it["partitions"]:
                    part["partitionIndex"] = "own"
            t.note_answer(f"in a transaction as {who}, {label}", "TxnOffsetCommit", 3, answer)


def sessions(t):
    """A member is removed if it does not sync, join again or send a heartbeat in time."""
    name = topic(t, 2)
    group, m = _with_consumer(t, name)
    a = group.classic("a", name)
    a.enter("must sync", rebalanceTimeoutMs=_SOON_MS)
    time.sleep(_LATER_S)
    a.sync("too late")
    group.describe_consumers("without the one that did not sync")
    m.join()
    a.member_id = ""
    a.enter("must join again", rebalanceTimeoutMs=_SOON_MS)
    a.sync("must join again")
    m.call(topicPartitions=m.owning())
    m.call(topicPartitions=m.owning())
    a.heartbeat("told to join")
    time.sleep(_LATER_S)
    a.heartbeat("too late to join")
    group.describe_consumers("without the one that did not join")
    m.join()
    a.member_id = ""
    a.enter("must send heartbeats", sessionTimeoutMs=_SOON_MS)
    a.sync("must send heartbeats")
    time.sleep(_LATER_S)
    a.heartbeat("too late")
    group.describe_consumers("without the silent one")


def other_apis(t):
    name = topic(t, 1)
    group, m = _with_consumer(t, name)
    a = group.classic("a", name)
    a.enter()
    a.sync()
    for version in range(7):
        t.ask("described as a classic group", "DescribeGroups", version, {"groups": [group.id]})
    for version in (0, 1):
        group.describe_consumers(f"described {version}", version)
    answer = t.call("ListGroups", 5, {})
    answer["groups"] = [it for it in answer["groups"] if it["groupId"] == group.id]
    t.note_answer("listed", "ListGroups", 5, answer)
    t.ask("deletes the group", "DeleteGroups", 2, {"groupsNames": [group.id]})


def restarts(t):
    """Members go on with their generations and partitions."""
    name = topic(t, 2)
    group, m = _with_consumer(t, name)
    a = group.classic("a", name)
    a.enter()
    reconcile(m, a, partitions=2)
    t.restart()
    t.find_coordinator(group.id)
    a.reconnect()
    a.shows = counted
    a.heartbeat("after the restart")
    a.sync("after the restart")
    a.enter("joins again")
    a.sync("joins again")
    m.ask("after the restart", shows=counted)
    group.describe_consumers("after the restart", shows=counted)
