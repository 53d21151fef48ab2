"""Conversion of groups with members between the classic and the consumer protocol (KIP-848)."""

import time

from ._consumers import counted, topic
from ._conversions import ConvertedGroup, assignment
from ._mixed import reconcile, subscription

SETTINGS = {
    "group_consumer_max_size": "3",
    "group_max_size": "2",
    "group_consumer_assignment_interval_ms": "0",
    "group_consumer_min_session_timeout_ms": "500",
    "group_consumer_session_timeout_ms": "1500",
    "group_consumer_min_heartbeat_interval_ms": "100",
    "group_consumer_heartbeat_interval_ms": "200",
}
_AFTER_THE_SESSION_S = 3


def _stable(t, name, label="group", instance_id=None):
    """A stable classic group of two members, which have half of the six partitions each."""
    group = ConvertedGroup(t, name, label)
    a, b = group.classic("a", name), group.classic("b", name, instance_id=instance_id)
    a.shows = b.shows = counted
    group.gather_classic({a: [0, 1, 2], b: [3, 4, 5]})
    return group, a, b


def stable_group(t):
    """A consumer joins and leaves. The classic members keep their partitions until they rejoin."""
    name = topic(t, 6)
    for version in (0, 1):
        group, a, b = _stable(t, name, f"group-{version}", "i")
        m = group.consumer("m", name)
        m.ask(f"has not joined {version}", version, memberEpoch=1)
        m.leave(f"has not joined, leaves {version}", version)
        m.join(f"joins {version}", version, shows=counted)
        group.describe_consumers(f"upgraded {version}", version, counted)
        group.describe(f"upgraded {version}")
        for member in (a, b):
            member.heartbeat(f"upgraded {version}")
            member.sync(f"upgraded {version}")
            member.enter(f"upgraded, joins again {version}")
            member.sync(f"upgraded, syncs again {version}")
        reconcile(m, a, b, partitions=6)
        group.describe_consumers(f"settled {version}", version, counted)
        m.leave(f"leaves {version}", version)
        group.describe_consumers(f"downgraded {version}", version)
        m.ask(f"after it left {version}", version)
        for member in (a, b):
            member.heartbeat(f"downgraded {version}")
            member.sync(f"downgraded {version}")


def commits(t):
    """Offsets stay, and each member commits with its generation or epoch."""
    name = topic(t, 6)
    group, a, b = _stable(t, name)
    a.commit("in the classic group", name, offset=3)
    m = group.consumer("m", name)
    m.join("joins", shows=counted)
    a.commit("with the generation of the classic group", name, offset=4)
    a.enter("joins again")
    a.commit("with its new generation", name, offset=5)
    m.leave("leaves")
    a.commit("with the generation of the consumer group", name, offset=6)
    asked = {"groupId": group.id, "topics": [{"name": name, "partitionIndexes": [0]}]}
    t.ask("committed", "OffsetFetch", 9, {"groups": [asked]})


def join_phase(t):
    """Joins that wait are refused when a consumer joins."""
    name = topic(t, 6)
    group, a, b = _stable(t, name)
    a.send_join(a.version(), {"range": subscription([name, "other"])})
    group.wait("PreparingRebalance")
    m = group.consumer("m", name)
    m.join("joins", shows=counted)
    a.answer("waited")
    group.describe_consumers("upgraded", shows=counted)
    b.heartbeat("has not rejoined")
    a.enter("joins again")


def sync_phase(t):
    """Syncs that wait are refused when a consumer joins."""
    name = topic(t, 6)
    group, a, b = _stable(t, name)
    for member in (a, b):
        member.send_join(member.version(), {"range": subscription([name, "other"])})
        group.wait("PreparingRebalance" if member is a else "CompletingRebalance")
    a.answer(), b.answer()
    b.send_sync()
    b.waits("sync")
    m = group.consumer("m", name)
    m.join("joins", shows=counted)
    b.answer("waited")
    group.describe_consumers("upgraded", shows=counted)
    a.sync("has not synced")
    a.heartbeat("has not synced")


def before_the_first_generation(t):
    """The members have joined, but have no assignments yet."""
    name = topic(t, 2)
    group = ConvertedGroup(t, name)
    a = group.classic("a", name)
    a.join("joins", 3, a.subscribing())
    m = group.consumer("m", name)
    m.join("joins in the sync phase", shows=counted)
    group.describe_consumers("upgraded", shows=counted)
    a.sync("has not synced")
    a.enter("joins again")


def refused_groups(t):
    name = topic(t, 6)
    other = ConvertedGroup(t, name, "other")
    a = other.member("a")
    a.join(version=3, protocols={"default": b"x"}, protocolType="other")
    other.consumer("m", name).join("another protocol type")

    full, a, b = _stable(t, name, "full")
    full.consumer("m", name).join("two members", shows=counted)
    full.consumer("n", name).join("three members")


def refused_assignments(t):
    name = topic(t, 2)
    for label, share in {
        "one byte": b"\0",
        "a version before the first": b"\xff\xff",
        "a length beyond the end": b"\0\0\x7f\xff\xff\xff",
        "user data": assignment(name, [0], b"data"),
        "no user data": assignment(name, [0]),
        "no assignment": b"",
        "a newer version": assignment(name, [0], version=9),
        "a topic that does not exist": assignment("none-such", [0, 1]),
        "a partition twice": assignment(name, [1, 1]),
        "a partition that does not exist": assignment(name, [7]),
    }.items():
        group = ConvertedGroup(t, name, label.replace(" ", "-"))
        group.gather_classic({group.member("a"): share})
        group.consumer("m", name).join(label, shows=counted)
        group.describe_consumers(label, shows=counted)


def refused_subscriptions(t):
    name = topic(t, 2)
    for label, metadata in {
        "nothing": b"",
        "a cut subscription": subscription([name])[:-2],
        "a negative version": b"\xff\xff" + subscription([name])[2:],
        "a newer version": b"\0\x09" + subscription([name])[2:] + b"more",
        "no topics": subscription([], version=0),
        "user data": subscription([name], user_data=b"data"),
    }.items():
        group = ConvertedGroup(t, name, label.replace(" ", "-"))
        group.gather_classic({group.member("a"): [0]}, protocols={"range": metadata})
        group.consumer("m", name).join(label, shows=counted)
        group.describe_consumers(label, shows=counted)


def two_owners(t):
    """Two members have the same partition."""
    name = topic(t, 2)
    group = ConvertedGroup(t, name)
    group.gather_classic({group.member("a"): [0, 1], group.member("b"): [1]})
    group.consumer("m", name).join("joins", shows=counted)
    group.describe("then")


def static_member_changes_its_protocol(t):
    """A consumer takes the place of a classic member, and the reverse."""
    name = topic(t, 6)
    group, a, b = _stable(t, name, instance_id="i")
    m = group.consumer("m", name, instanceId="i")
    m.join("joins")
    group.describe_consumers("upgraded", shows=counted)
    b.heartbeat("fenced")
    m.leave("leaves for a while", epoch=-2)
    group.describe_consumers("away", shows=counted)
    c = group.classic("c", name, instance_id="i")
    c.join("takes its place", 5, c.subscribing())
    group.describe("downgraded")
    group.describe_consumers("downgraded")
    c.sync("in the classic group")
    c.heartbeat("in the classic group")
    a.heartbeat("in the classic group")
    m.ask("fenced")


def static_member_replaced_with_another_subscription(t):
    """The target assignment is then older than the group, so the classic group rebalances."""
    name = topic(t, 6)
    group, a, b = _stable(t, name, instance_id="i")
    m = group.consumer("m", name, instanceId="i")
    m.join("joins")
    m.leave("leaves for a while", epoch=-2)
    c = group.classic("c", name, instance_id="i")
    c.join("takes its place", 5, {"range": subscription([name, "other"])})
    group.describe("downgraded")
    c.sync("in the classic group")
    c.heartbeat("in the classic group")
    a.heartbeat("in the classic group")


def static_member_replaced_alone(t):
    """The only member of the group."""
    name = topic(t, 2)
    group = ConvertedGroup(t, name)
    m = group.consumer("m", name, instanceId="i")
    m.join("joins")
    m.leave("leaves for a while", epoch=-2)
    c = group.classic("c", name, instance_id="i")
    c.join("takes its place", 5, c.subscribing())
    group.describe("downgraded")
    c.sync("in the classic group")
    c.heartbeat("in the classic group")


def last_consumer_goes(t):
    """The last consumer leaves, is removed, or its session ends."""
    name = topic(t, 6)
    for way in ("leaves", "is removed", "is removed with another", "sends no heartbeat"):
        group, a, b = _stable(t, name, way.replace(" ", "-"))
        m = group.consumer("m", name, instanceId="i")
        m.join(f"joins, {way}", shows=counted)
        members = [{"memberId": "", "groupInstanceId": "i"}]
        if way == "leaves":
            m.leave(way)
        elif way == "is removed":
            t.ask(way, "LeaveGroup", 5, {"groupId": group.id, "members": members})
        elif way == "is removed with another":
            members += [{"memberId": a.member_id}, {"memberId": "nobody"}]
            t.ask(way, "LeaveGroup", 5, {"groupId": group.id, "members": members})
        else:
            time.sleep(_AFTER_THE_SESSION_S)
        group.describe(way)
        group.describe_consumers(way)
        b.heartbeat(way)


def too_many_for_a_classic_group(t):
    """`group.max.size` is 2. The group stays a consumer group until there is room."""
    name = topic(t, 6)
    group, a, b = _stable(t, name, instance_id="i")
    m = group.consumer("m", name, instanceId="i")
    m.join("takes the place of one", shows=counted)
    c = group.classic("c", name)
    c.enter("joins")
    m.leave("leaves")
    group.describe_consumers("downgraded")
    group.describe("downgraded")
    n = group.consumer("n", name)
    n.join("joins", shows=counted)
    d = group.classic("d", name, instance_id="j")
    d.join("a fourth", 5, d.subscribing())
    n.leave("leaves")
    group.describe("downgraded again")


def classic_members_stay_in_a_consumer_group(t):
    """`group.max.size` is 2. With three classic members, the group stays a consumer group."""
    name = topic(t, 3)
    group = ConvertedGroup(t, name)
    m = group.consumer("m", name, instanceId="i")
    m.join("joins")
    a, b = group.classic("a", name), group.classic("b", name)
    for member in (a, b):
        member.enter("joins")
    m.leave("leaves for a while", epoch=-2)
    c = group.classic("c", name, instance_id="i")
    c.join("takes its place", 5, c.subscribing())
    group.describe("three members")
    c.leave("leaves")
    group.describe("two members")


def all_members_go(t):
    """A group without members stays what it is."""
    name = topic(t, 2)
    group = ConvertedGroup(t, name)
    a = group.classic("a", name)
    group.gather_classic({a: [0, 1]})
    m = group.consumer("m", name)
    m.join("joins", shows=counted)
    members = [{"memberId": "m"}, {"memberId": a.member_id}]
    t.ask("both are removed", "LeaveGroup", 5, {"groupId": group.id, "members": members})
    group.describe_consumers("empty")
    group.describe("empty")


def restarts(t):
    """The group is the same after a restart, before and after a conversion back."""
    name = topic(t, 6)
    group, a, b = _stable(t, name)
    m = group.consumer("m", name)
    m.join("joins", shows=counted)
    group.describe_consumers("before the restart", shows=counted)
    t.restart()
    t.find_coordinator(group.id)
    group.describe_consumers("after the restart", shows=counted)
    m.leave("leaves")
    group.describe("before the second restart")
    t.restart()
    t.find_coordinator(group.id)
    group.describe("after the second restart")
