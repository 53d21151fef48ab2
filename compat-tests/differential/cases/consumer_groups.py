"""ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848)."""

import time

from ._consumers import ConsumerGroup, counted, settle, topic
from ._members import Group

SETTINGS = {
    "group_consumer_max_size": "3",
    "group_consumer_assignment_interval_ms": "0",
    "group_consumer_min_session_timeout_ms": "500",
    "group_consumer_min_heartbeat_interval_ms": "100",
}
_UNKNOWN_ID = "00000000-0000-0000-0000-00000000abcd"
# A regular expression is resolved after the response to the heartbeat that brings it.
_RESOLVED_S = 0.5


def form(t):
    """Requests that are refused for their form. The groups do not exist."""
    owned = [{"topicId": _UNKNOWN_ID, "partitions": [0]}]
    group = ConsumerGroup(t)
    for version in (0, 1):
        a = group.consumer("a", "t")
        for label, fields in {
            "no group id": {"groupId": ""},
            "a blank group id": {"groupId": "  "},
            "no instance id": {"instanceId": ""},
            "a blank instance id": {"instanceId": "\t"},
            "no rack id": {"rackId": ""},
            "no timeout": {"rebalanceTimeoutMs": -1},
            "owned partitions": {"topicPartitions": owned},
            "null partitions": {"topicPartitions": None},
            "no subscription": {"subscribedTopicNames": None},
            "an unknown assignor": {"serverAssignor": "nonsense"},
            "an empty assignor": {"serverAssignor": ""},
            "a capital assignor": {"serverAssignor": "Range"},
            "nothing right": {"groupId": "", "memberId": "", "rackId": "", "instanceId": "",
                              "rebalanceTimeoutMs": -1, "serverAssignor": "x"},
        }.items():  # fmt: skip
            a.join(f"joins with {label}", version, **fields)
        for epoch in (1, -1, 2**31 - 1):
            a.ask(f"no member id, epoch {epoch}", version, memberId="", memberEpoch=epoch)
            a.ask(f"no group, epoch {epoch}", version, memberEpoch=epoch)
        for epoch in (-2, -3, -(2**31)):
            a.ask(f"no instance id, epoch {epoch}", version, memberEpoch=epoch)
        a.ask("no group, epoch -2", version, memberEpoch=-2, instanceId="i")
    a.join("joins without a member id", memberId="")
    a.join("joins with a blank member id", memberId=" ")
    a.ask("null group id", groupId=None)
    a.ask("null member id", memberId=None)
    group.describe_consumers("then")


def joins_and_leaves(t):
    name = topic(t, 3)
    for version in (0, 1):
        group = ConsumerGroup(t, f"group-{version}")
        a = group.consumer("a", name)
        group.describe_consumers(f"before {version}")
        a.join("joins", version)
        group.describe_consumers(f"joined {version}")
        a.ask("nothing new", version)
        a.ask("reports what it owns", version, topicPartitions=a.owning())
        a.ask("tells everything", version, topicPartitions=a.owning(),
              rebalanceTimeoutMs=60_000, subscribedTopicNames=[name])  # fmt: skip
        a.ask("an unknown member", version, memberId="nobody")
        a.ask("an epoch before", version, memberEpoch=a.epoch - 1 or 2**31 - 1)
        a.ask("an epoch after", version, memberEpoch=a.epoch + 1)
        a.join("joins again", version)
        group.describe_consumers(f"joined again {version}")
        a.ask("another rack and timeout", version, rackId="r", rebalanceTimeoutMs=50_000)
        group.describe_consumers(f"with a rack {version}", version)
        a.ask("unknown partitions", version,
              topicPartitions=[{"topicId": _UNKNOWN_ID, "partitions": [0, 0, -1]}])  # fmt: skip
        a.leave("leaves", version)
        a.leave("leaves again", version)
        a.ask("after it left", version, memberEpoch=1)
        group.describe_consumers(f"left {version}")
        group.describe(f"left {version}", 6)
        a.leave("an unknown member leaves", version, memberId="nobody")
        a.join("joins the empty group", version)


def id_of_the_broker(t):
    """In version 0, the broker makes the id of a member that has none."""
    name = topic(t)
    group = ConsumerGroup(t)
    a = group.consumer("a", name)
    a.identity["memberId"] = ""
    answer = a.join(version=0)
    t.note("length of the id", len(answer["memberId"]))
    t.mask_as(answer["memberId"], "made by the broker")
    t.note_answer("a: joins", "ConsumerGroupHeartbeat", 0, answer)
    a.ask("without its id", 0)
    a.identity["memberId"] = answer["memberId"]
    a.ask("with its id", 0)
    group.describe_consumers("then")
    a.leave("leaves", 0)


def subscriptions(t):
    first, second = topic(t, 2), topic(t, 1)
    group = ConsumerGroup(t)
    a = group.consumer("a", first)
    a.join("joins")
    for label, names in {
        "the same": [first],
        "twice the same": [first, first],
        "both": [first, second],
        "another order": [second, first],
        "one that does not exist": ["none-such"],
        "a name that is none": ["a b"],
        "an empty name": [""],
        "nothing": [],
        "the second": [second],
    }.items():
        a.ask(label, subscribedTopicNames=names, topicPartitions=a.owning())
        group.describe_consumers(label)
        settle(a, partitions=sum(len(it) for it in a.owned.values()))
        a.ask(f"{label}, settled", topicPartitions=a.owning(), rebalanceTimeoutMs=60_000,
              subscribedTopicNames=names)  # fmt: skip
    group.describe_consumers("at the end")


def topics_come_and_grow(t):
    group = ConsumerGroup(t)
    name = topic(t, 1)
    later = t.new_name("later")
    a = group.consumer("a", name, later)
    a.join("joins")
    t.call("CreatePartitions", 3, {"topics": [{"name": name, "count": 3, "assignments": None}],
                                   "timeoutMs": 10_000})  # fmt: skip
    settle(a, partitions=3)
    a.ask("with more partitions", topicPartitions=a.owning())
    t.call("CreateTopics", 7, {"topics": [
        {"name": later, "numPartitions": 2, "replicationFactor": 1}], "timeoutMs": 10_000})  # fmt: skip
    t.learn_topic(later)
    settle(a, partitions=5)
    group.describe_consumers("with another topic")
    t.call("DeleteTopics", 5, {"topicNames": [later], "timeoutMs": 10_000})
    settle(a, partitions=3)
    group.describe_consumers("without it")


def two_members(t):
    name = topic(t, 4)
    for version in (0, 1):
        group = ConsumerGroup(t, f"group-{version}")
        a, b = group.consumer("a", name), group.consumer("b", name)
        a.join(f"joins {version}", version)
        b.join(f"joins {version}", version)
        group.describe_consumers(f"two {version}", version, counted)
        before = a.owning()
        a.ask(f"has to give up two {version}", version, counted, topicPartitions=before)
        a.ask(f"still owns all {version}", version, counted, topicPartitions=before)
        b.ask(f"must wait {version}", version, counted)
        group.describe_consumers(f"while it owns all {version}", version, counted)
        a.ask(f"has given up two {version}", version, counted, topicPartitions=a.owning())
        b.ask(f"gets two {version}", version, counted)
        a.ask(f"epochs of a {version}", version, counted)
        b.ask(f"an epoch before, nothing owned {version}", version, counted,
              memberEpoch=b.epoch - 1, topicPartitions=[])  # fmt: skip
        b.ask(f"an epoch before, owning {version}", version, counted,
              memberEpoch=b.epoch - 1, topicPartitions=before)  # fmt: skip
        settle(a, b, partitions=4)
        group.describe_consumers(f"settled {version}", version, counted)
        a.leave(f"leaves {version}", version)
        settle(b, partitions=4)
        group.describe_consumers(f"one left {version}", version)


def static_members(t):
    name = topic(t, 2)
    for version in (0, 1):
        group = ConsumerGroup(t, f"group-{version}")
        a = group.consumer("a", name, instanceId="i")
        a.join("joins", version)
        b = group.consumer("b", name, instanceId="i")
        b.join("joins while it is there", version)
        a.ask("not with another instance id", version, instanceId="j")
        a.ask("without instance id", version, instanceId=None)
        a.leave("leaves for a while", version, -2)
        group.describe_consumers(f"away {version}", version)
        a.ask("after it left", version, memberEpoch=1)
        b.join("takes its place", version)
        group.describe_consumers(f"replaced {version}", version)
        a.ask("fenced", version, memberEpoch=1)
        a.leave("fenced, leaves", version)
        a.leave("fenced, leaves for a while", version, -2)
        b.leave("leaves for a while, another instance", version, -2, instanceId="j")
        b.leave("leaves for a while", version, -2)
        c = group.consumer("c", name, "other", instanceId="i")
        c.join("takes its place, another subscription", version)
        group.describe_consumers(f"replaced again {version}", version)
        c.leave("leaves", version)
        group.describe_consumers(f"left {version}", version)
        c.join("joins anew", version)


def unknown(t):
    group = ConsumerGroup(t)
    a, nobody = group.consumer("a", "t"), group.consumer("nobody", "t")
    for version in (0, 1):
        for epoch in (1, -1):
            a.ask(f"no group, epoch {epoch}", version, memberEpoch=epoch)
    a.join("joins")
    for version in (0, 1):
        for epoch in (1, 7, -1):
            nobody.ask(f"epoch {epoch}", version, memberEpoch=epoch)
        nobody.ask("epoch -2", version, memberEpoch=-2, instanceId="i")


def assignors(t):
    name = topic(t, 4)
    group = ConsumerGroup(t)
    a = group.consumer("a", name)
    a.join("chooses range", serverAssignor="range")
    group.describe_consumers("range")
    a.ask("chooses uniform", serverAssignor="uniform")
    group.describe_consumers("uniform")
    b = group.consumer("b", name)
    b.join("chooses none", shows=counted)
    group.describe_consumers("one of two has chosen", shows=counted)


def too_many(t):
    group = ConsumerGroup(t)
    members = [group.consumer(it, "t") for it in "abc"]
    for member in members:
        member.join("joins")
    d = group.consumer("d", "t")
    for version in (0, 1):
        d.join("a fourth", version)
    members[0].join("joins again")
    members[0].leave("leaves")
    d.join("now there is room")


def expressions(t):
    names = [topic(t, 1), topic(t, 2)]
    group = ConsumerGroup(t)
    prefix = names[0].rsplit("-", 1)[0]
    for name, mask in zip((*names, prefix), ("first", "second", "prefix"), strict=True):
        t.mask_as(name, mask)
    a = group.consumer("a")
    joining = {"subscribedTopicNames": None}
    before = 0
    for label, pattern, count in (
        ("all", f"{prefix}-.*", 3),
        ("the second", f"{names[1]}|x", 2),
        ("only a part of the name", prefix, 0),
        ("nothing", "", 0),
    ):
        if a.epoch == 0:
            a.join(label, subscribedTopicRegex=pattern, **joining)
        else:
            before = group.described()["groupEpoch"]
            a.ask(label, subscribedTopicRegex=pattern)
        settle(a, partitions=count, above=before)
        group.describe_consumers(label)
    a.ask("both", subscribedTopicRegex=names[1], subscribedTopicNames=[names[0]])
    time.sleep(_RESOLVED_S)
    settle(a, partitions=3)
    group.describe_consumers("both")
    a.ask("names only", subscribedTopicRegex="")
    settle(a, partitions=1)
    group.describe_consumers("names only")


def refused_expressions(t):
    group = ConsumerGroup(t)
    a = group.consumer("a")
    for pattern in ("(", ")", "[", "a**", "*", r"\1", "(?=x)", "a{2,1}", "a{1,1001}", "[z-a]",
                    "(?P<n>a)(?P<n>b)", r"\p{Alpha}", "a\\", "(?i", "[[:nonsense:]]", r"\Z",
                    "x{2}{3}"):  # fmt: skip
        label = pattern.replace("-", " ")
        a.join(f"joins with {label}", subscribedTopicRegex=pattern, subscribedTopicNames=None)
    a.join("joins", subscribedTopicRegex="a+", subscribedTopicNames=None)
    a.ask("changes to a bad one", subscribedTopicRegex="+")
    time.sleep(_RESOLVED_S)
    group.describe_consumers("then")


def describes(t):
    name = topic(t, 2)
    one, classic, empty = ConsumerGroup(t, "one"), Group(t, "classic"), ConsumerGroup(t, "empty")
    a = one.consumer("a", name, rackId="r", instanceId="i")
    a.join()
    settle(a, partitions=2)
    e = empty.consumer("e", name)
    e.join()
    e.leave()
    c = classic.member("c")
    classic.gather(c)
    unknown_id = t.new_name("unknown")
    for version in (0, 1):
        for label, ids in {
            "one": [one.id],
            "empty": [empty.id],
            "classic": [classic.id],
            "unknown": [unknown_id],
            "no id": [""],
            "nothing": [],
            "twice": [one.id, one.id],
            "several": [one.id, "", unknown_id, empty.id, classic.id],
        }.items():
            for operations in (False, True):
                t.ask(f"{label}, operations {operations}", "ConsumerGroupDescribe", version,
                      {"groupIds": ids, "includeAuthorizedOperations": operations})  # fmt: skip
    t.ask("null ids", "ConsumerGroupDescribe", 1, {"groupIds": None})


def other_group_apis(t):
    """What the other APIs of groups answer for a consumer group."""
    name = topic(t, 2)
    group = ConsumerGroup(t)
    a = group.consumer("a", name)
    a.join()
    settle(a, partitions=2)
    for version in range(7):
        t.ask("described as a classic group", "DescribeGroups", version, {"groups": [group.id]})
    for version in range(6):
        for label, filters in {
            "all": {},
            "consumer": {"typesFilter": ["Consumer"]},
            "classic": {"typesFilter": ["classic"]},
            "stable": {"statesFilter": ["stable"]},
            "assigning": {"statesFilter": ["Assigning"]},
        }.items():
            since = {"statesFilter": 4, "typesFilter": 5}
            if all(version >= since[it] for it in filters):
                answer = t.call("ListGroups", version, filters)
                answer["groups"] = [it for it in answer["groups"] if it["groupId"] == group.id]
                t.note_answer(label, "ListGroups", version, answer)
    deleted = {"groupId": group.id, "topics": [
        {"name": name, "partitions": [{"partitionIndex": 0}]}]}  # fmt: skip
    t.ask("deletes offsets", "OffsetDelete", 0, deleted)
    t.ask("deletes the group", "DeleteGroups", 2, {"groupsNames": [group.id]})
    a.leave()
    t.ask("deletes offsets, empty", "OffsetDelete", 0, deleted)
    t.ask("deletes the empty group", "DeleteGroups", 2, {"groupsNames": [group.id]})
    group.describe_consumers("deleted")


def commits(t):
    name = topic(t, 2)
    group = ConsumerGroup(t)
    a = group.consumer("a", name)
    a.join()
    settle(a, partitions=2)

    def commit(label, version, member, epoch, **fields):
        named = {"topicId": t.id_of(name)} if version >= 10 else {"name": name}
        rows = [{"partitionIndex": it, "committedOffset": 1} for it in (0, 1)]
        body = {"groupId": group.id, "memberId": member, "generationIdOrMemberEpoch": epoch,
                "topics": [{**named, "partitions": rows}], **fields}  # fmt: skip
        t.ask(f"{label}, epoch {epoch}", "OffsetCommit", version, body)

    def fetch(label, version, member, epoch):
        named = {"topicId": t.id_of(name)} if version >= 10 else {"name": name}
        body = {"groupId": group.id, "topics": [{**named, "partitionIndexes": [0, 1]}]}
        who = {"memberId": member, "memberEpoch": epoch} if version >= 9 else {}
        t.ask(f"{label}, epoch {epoch}", "OffsetFetch", version, {"groups": [{**body, **who}]})

    for version in (2, 7, 8, 9, 10):
        for member in ("a", "nobody", ""):
            for epoch in (a.epoch, a.epoch - 1, a.epoch + 1, -1, -2):
                commit(f"commits as {member!r}", version, member, epoch)
    for version in (8, 9, 10):
        for member in ("a", "nobody", "", None):
            for epoch in (a.epoch, a.epoch - 1, a.epoch + 1, -1, -2):
                fetch(f"fetches as {member!r}", version, member, epoch)
    a.leave()
    for version in (8, 9, 10):
        commit("commits to the empty group as 'a'", version, "a", 1)
        commit("commits to the empty group", version, "", -1)
        fetch("fetches from the empty group as 'a'", version, "a", 1)
        fetch("fetches from the empty group", version, None, -1)


def configs(t):
    """Configs of a group are in force at the next heartbeat."""
    group = ConsumerGroup(t)
    a = group.consumer("a", "t")
    a.join("joins")

    def alter(label, *configs):
        listed = [{"name": name, "configOperation": 1 if value is None else 0, "value": value}
                  for name, value in configs]  # fmt: skip
        resource = {"resourceType": 32, "resourceName": group.id, "configs": listed}
        t.ask(label, "IncrementalAlterConfigs", 1, {"resources": [resource]})
        t.settle()
        time.sleep(0.1)

    heartbeat, session = "consumer.heartbeat.interval.ms", "consumer.session.timeout.ms"
    alter("a shorter interval", (heartbeat, "200"))
    a.ask("sees the shorter interval")
    alter("too short an interval", (heartbeat, "50"))
    alter("too long an interval", (heartbeat, "15001"))
    alter("session not longer than the interval", (session, "500"), (heartbeat, "500"))
    alter("session not longer than the broker's interval", (session, "5000"), (heartbeat, None))
    alter("no number", (heartbeat, "x"))
    alter("an unknown name", ("consumer.nonsense", "1"))
    alter("too long an assignment interval", ("consumer.assignment.interval.ms", "15001"))
    alter("a short session", (session, "600"))
    a.ask("still there")
    time.sleep(1.5)
    a.ask("its session has ended")
    group.describe_consumers("without members")
    alter("back to the broker's", (heartbeat, None), (session, None))
    a.join("joins again")


def bad_partitions(t):
    """Many and odd values in one request."""
    group = ConsumerGroup(t)
    a = group.consumer("a", "t")
    a.join("joins")
    for label, owned in {
        "many": [{"topicId": _UNKNOWN_ID, "partitions": list(range(20_000))}],
        "a topic twice": [{"topicId": _UNKNOWN_ID, "partitions": [0]}] * 2,
        "out of range": [{"topicId": _UNKNOWN_ID, "partitions": [-1, 2**31 - 1, -(2**31)]}],
        "none of a topic": [{"topicId": _UNKNOWN_ID, "partitions": []}],
    }.items():
        a.ask(label, topicPartitions=owned)
    a.ask("a thousand names", subscribedTopicNames=[f"name-{it}" for it in range(1000)])
    a.ask("a long name", subscribedTopicNames=["x" * 32_767])
    a.ask("a longer name", subscribedTopicNames=["x" * 32_768])
