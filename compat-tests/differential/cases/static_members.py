"""Static members (KIP-345, KIP-814): fencing, and returns without a rebalance."""

import time

from ._members import Group, subscription

_SOON_MS = 1000


def joins_twice(t):
    for version in range(5, 10):
        group = Group(t, f"group-{version}")
        a, b = group.member("a", "i"), group.member("b", "i")
        group.gather(a)
        b.join("takes its place", version)
        group.describe(f"with its new id {version}")
        b.sync(f"in that generation {version}", min(version, 5))
        b.heartbeat(f"goes on {version}")
        _fenced(t, a, version)
        b.heartbeat(f"still there {version}")


def _fenced(t, member, version):
    topic = t.topic(1)
    member.heartbeat(f"fenced {version}")
    member.heartbeat(f"fenced, without instance id {version}", groupInstanceId=None)
    member.sync(f"fenced {version}")
    member.commit(f"fenced {version}", topic)
    member.commit(f"fenced {version}", topic, 7, groupInstanceId=None)
    member.leave(f"fenced {version}")
    member.leave(f"fenced, without instance id {version}",
                 members=[{"memberId": member.member_id}])  # fmt: skip
    member.join("fenced", version)


def leader_returns(t):
    for version in range(5, 10):
        group = Group(t, f"group-{version}")
        a, b = group.member("a", "i"), group.member("b", "j")
        group.gather(a, b)
        back = group.member("back", "i")
        back.join("unchanged", version)
        b.heartbeat(f"nothing happened {version}")
        back.sync(f"unchanged {version}", 5)
        last = group.member("last", "i")
        last.send_join(version, {"range": subscription("t", "u")})
        last.answer("another subscription")
        b.heartbeat(f"another subscription {version}")
        group.describe(f"then {version}")


def follower_returns(t):
    for version in (5, 8, 9):
        group = Group(t, f"group-{version}")
        a, b = group.member("a", "i"), group.member("b", "j")
        group.gather(a, b)
        back = group.member("back", "j")
        back.join("unchanged", version)
        a.heartbeat(f"nothing happened {version}")
        last = group.member("last", "j")
        last.send_join(version, {"sticky": subscription("t"), "range": subscription("t")})
        last.answer("another protocol first")
        a.heartbeat(f"then {version}")
        group.describe(f"then {version}")
        last.send_join(version, {"range": subscription("x")})
        group.wait("PreparingRebalance")
        a.join("rejoins", version)
        last.answer("with its id")


def protocol_changes(t):
    """A static member returns with other protocols, so that the group must rebalance."""
    group = Group(t)
    a, b = group.member("a", "i"), group.member("b", "j")
    group.gather(a, b, protocols=("range", "sticky"))
    back = group.member("back", "j")
    back.send_join(9, ("sticky",))
    group.wait("PreparingRebalance")
    a.heartbeat("is told")
    back.waits("for the leader")
    a.join("rejoins", 9, ("range", "sticky"))
    back.answer("another protocol")


def races(t):
    group = Group(t)
    a, b = group.member("a", "i"), group.member("b", "j")
    group.gather(a, b)
    a.send_join()
    group.wait("PreparingRebalance")
    again = group.member("again", "i")
    again.send_join()
    a.answer("its join, taken over")
    b.join("rejoins")
    again.answer("the new one")
    b.send_sync()
    b.waits("for its part")
    other = group.member("other", "j")
    other.send_join()
    b.answer("its sync, taken over")
    group.describe("preparing")
    again.sync("the leader assigns too late")
    again.join("rejoins")
    other.answer("the new follower")
    third = group.member("third", "i")
    third.send_join()
    group.wait("PreparingRebalance")
    other.heartbeat("the leader came back while completing")
    other.join("rejoins")
    third.answer("the new leader")


def too_many(t):
    group = Group(t)
    a, b, c = (group.member(it, f"i-{it}") for it in "abc")
    group.gather(a, b, c)
    for version in (5, 9):
        back = group.member("back", "i-b")
        back.join("comes back to a full group", version)
        group.member("d", "i-d").join("a fourth", version)
    group.describe("then")
    a.send_join()
    group.wait("PreparingRebalance")
    back = group.member("back", "i-b")
    back.send_join()
    c.join("rejoins")
    a.answer("the leader")
    back.answer("comes back while preparing")


def leaves(t):
    for version in (3, 4, 5):
        group = Group(t, f"group-{version}")
        a, b = group.member("a", "i"), group.member("b", "j")
        group.gather(a, b)
        a.leave("another's instance id", version,
                members=[{"memberId": a.member_id, "groupInstanceId": "j"}])  # fmt: skip
        a.leave("an unknown instance id", version,
                members=[{"memberId": a.member_id, "groupInstanceId": "k"}])  # fmt: skip
        a.leave("unknown id of its instance", version,
                members=[{"memberId": "nobody", "groupInstanceId": "i"}])  # fmt: skip
        group.describe(f"nobody left {version}")
        a.leave("by instance id, and more", version, members=[
            {"memberId": "", "groupInstanceId": "j"}, {"memberId": "", "groupInstanceId": "k"},
            {"memberId": "nobody"}])  # fmt: skip
        group.describe(f"one left {version}")
        b.heartbeat(f"was made to leave {version}")
        a.join(None, 5)
        a.leave("without instance id", version, members=[{"memberId": a.member_id}])
        group.describe(f"all left {version}")
        a.join(f"after that {version}", 5)
        a.member_id = ""
        a.join(f"as new {version}", 5)


def mistaken(t):
    group = Group(t)
    a, b = group.member("a", "i"), group.member("b", "j")
    group.gather(a, b)
    topic = t.topic(1)
    for label, instance, member in (
        ("another's instance id", "j", a.member_id),
        ("an unknown instance id", "k", a.member_id),
        ("an unknown member id", "i", "nobody"),
        ("no member id", "i", ""),
        ("another's member id", "i", b.member_id),
    ):
        who = {"groupInstanceId": instance, "memberId": member}
        if member:
            a.join(label, 7, **who)
        a.sync(label, **who)
        a.heartbeat(label, **who)
        a.commit(label, topic, **who)
        a.commit(f"{label}, no generation", topic, generationIdOrMemberEpoch=-1, **who)
    a.heartbeat("in the end")
    static = group.member("c")
    static.join("no instance id, and its id", 5, memberId=a.member_id)


def is_away(t):
    """A static member that is away keeps its place until its session times out."""
    group = Group(t)
    a, b = group.member("a", "i"), group.member("b", "j")
    soon = {"rebalanceTimeoutMs": _SOON_MS}
    group.gather(a, b, **soon, sessionTimeoutMs=3 * _SOON_MS)
    a.send_join(9, **soon)
    a.answer("without the other")
    group.describe("the other is still in")
    a.sync("assigns")
    a.heartbeat("goes on")
    deadline = time.monotonic() + 10
    while a.heartbeat()["errorCode"] == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    group.describe("the other's session ended")
    b.heartbeat("is out")
    b.join("as who it was")


def leader_is_away(t):
    group = Group(t)
    a, b = group.member("a", "i"), group.member("b", "j")
    soon = {"rebalanceTimeoutMs": _SOON_MS}
    group.gather(a, b, **soon)
    b.send_join(9, {"range": subscription("u")}, **soon)
    b.answer("leads in place of the leader")
    b.sync("assigns")
    a.heartbeat("an old generation")
    a.join("comes back")
