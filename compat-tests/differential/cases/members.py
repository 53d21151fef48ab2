"""Rebalances of several members, which join, wait or are late."""

import time

from ._members import Group, subscription

_SOON_MS = 1000


def two_members(t):
    for version in (0, 1, 3):
        group = Group(t, f"group-{version}")
        a, b = group.member("a"), group.member("b")
        group.gather(a)
        b.send_join(version)
        group.wait("PreparingRebalance")
        b.waits(f"join {version}")
        group.describe(f"preparing {version}")
        a.heartbeat(f"preparing {version}")
        a.sync(f"preparing {version}")
        a.join("rejoins", version)
        b.answer("joined")
        group.describe(f"completing {version}")
        b.send_sync(version)
        b.waits(f"sync {version}")
        a.heartbeat(f"completing {version}")
        parts = [{"memberId": it.member_id, "assignment": it.name.encode()} for it in (a, b)]
        a.sync("assigns", version, parts)
        b.answer("its part")
        group.describe(f"stable {version}")
        b.leave(f"leaves {version}")
        group.describe(f"after {version}")
        a.heartbeat(f"after {version}")


def with_member_ids(t):
    """The same steps with member ids, as today's clients join."""
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    a.join("told its id")
    a.join("joins", reason="new")
    a.sync("assigns")
    b.join("told its id")
    a.heartbeat("b is not in yet")
    b.send_join()
    group.wait("PreparingRebalance")
    a.heartbeat("b is joining")
    a.join("rejoins")
    b.answer("joined")
    b.send_sync()
    a.sync("assigns nothing")
    b.answer("nothing")


def rejoin(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, b)
    b.join("unchanged")
    b.send_join(9, {"range": subscription("t", "u")})
    group.wait("PreparingRebalance")
    b.waits("with another subscription")
    a.join("rejoins")
    b.answer("with another subscription")
    a.join("unchanged, while completing")
    b.join("unchanged, while completing", 9, {"range": subscription("t", "u")})
    b.send_sync()
    b.waits("its part")
    a.send_join(9, {"range": subscription("v")})
    group.wait("PreparingRebalance")
    b.answer("its part never came")
    b.join("comes back")
    a.answer("changed, while completing")
    group.assign(a, b)
    a.send_join()
    group.wait("PreparingRebalance")
    b.heartbeat("the leader rejoined")
    b.commit("the leader rejoined", t.topic(1))
    b.join("follows")
    a.answer("the leader")


def joins_twice(t):
    """A member that stops waiting for its join and joins again on another connection."""
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, b)
    a.send_join()
    group.wait("PreparingRebalance")
    again = group.member("a-again")
    again.member_id = a.member_id
    again.send_join()
    a.answer("the first of two")
    b.join("follows")
    again.answer("the second of two")
    b.send_sync()
    b.waits("its part")
    other = group.member("b-again")
    other.member_id, other.generation = b.member_id, b.generation
    other.send_sync()
    b.answer("the first sync of two")
    again.sync("assigns", 5, [{"memberId": b.member_id, "assignment": b"b"}])
    other.answer("the second sync of two")


def inconsistent(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, protocols=("range", "sticky"))
    for version in (3, 9):
        b.join("another type", version, protocolType="connect")
        b.join("no type", version, protocolType="")
        b.join("no shared protocol", version, ("cooperative",))
        b.join("no protocols", version, ())
    a.join("itself with another", 9, ("cooperative",), protocolType="connect")
    a.heartbeat("all goes on")
    group.describe("as it was")
    b.send_join(3, ("sticky", "cooperative"))
    group.wait("PreparingRebalance")
    a.join("rejoins", 9, ("range", "sticky"))
    b.answer("the one they share")
    a.join("itself with what the other has not", 9, ("range",))


def votes(t):
    group = Group(t)
    a, b, c = (group.member(it) for it in "abc")
    wishes = {a: ("x", "y", "z"), b: ("y", "x", "w"), c: ("y", "w", "x")}
    a.join(None, 3, wishes[a])
    a.sync(None, 0)
    for newcomer, present in ((b, [a]), (c, [a, b])):
        newcomer.send_join(3, wishes[newcomer])
        group.wait("PreparingRebalance")
        for it in present:
            it.send_join(3, wishes[it])
        for it in (*present, newcomer):
            it.answer(f"with {newcomer.name}")
        for it in (*present, newcomer):
            it.send_sync(0)
        for it in (*present, newcomer):
            it.answer()
    c.leave("leaves")


def leader_leaves(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, b)
    a.leave("leaves")
    group.describe("preparing")
    b.heartbeat("is told")
    b.join("becomes the leader")
    b.sync("assigns")
    a.heartbeat("is gone")
    a.join("with its old id")
    a.join("with its old id", 3)


def leaves_while_waiting(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a)
    b.send_join(3)
    group.wait("PreparingRebalance")
    described = t.call("DescribeGroups", 5, {"groups": [group.id]})["groups"][0]["members"]
    of_b = next(it["memberId"] for it in described if it["clientId"] == "b")
    t.ask("the one who waits", "LeaveGroup", 3,
          {"groupId": group.id, "members": [{"memberId": of_b}]})  # fmt: skip
    b.answer("its join")
    a.join("rejoins alone")
    c = group.member("c")
    a.sync(None, 0)
    c.send_join(3)
    group.wait("PreparingRebalance")
    a.leave("leaves while another waits")
    c.answer("goes on alone")
    c.send_sync(0)
    c.answer("assigns itself")


def too_many(t):
    group = Group(t)
    a, b, c = (group.member(it) for it in "abc")
    soon = {"rebalanceTimeoutMs": 2 * _SOON_MS}
    group.gather(a, b, c, **soon)
    for version in (3, 4, 9):
        d = group.member("d")
        d.join("a fourth", version)
    static = group.member("e", "i")
    static.join("a static fourth", 5)
    b.join("one of the three", **soon)
    a.send_join(9, **soon)
    group.wait("PreparingRebalance")
    d = group.member("d")
    d.join("a fourth while preparing, told its id", **soon)
    d.send_join(9, **soon)
    d.waits("the fourth's join")
    c.send_join(9, **soon)
    c.waits("the third's join")
    b.join("the last of the three", **soon)
    for it in (a, c, d):
        it.answer("in the end")
    group.describe("in the end")


def is_late_to_rejoin(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, rebalanceTimeoutMs=_SOON_MS)
    b.send_join(3, rebalanceTimeoutMs=_SOON_MS)
    b.answer("the other did not come")
    b.sync("assigns")
    a.heartbeat("is out")
    a.commit("is out", t.topic(1))
    a.join("is out")
    a.sync("is out")
    a.leave("is out")


def is_late_to_sync(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    group.gather(a, rebalanceTimeoutMs=_SOON_MS)
    b.send_join(3, rebalanceTimeoutMs=_SOON_MS)
    group.wait("PreparingRebalance")
    a.join("rejoins", rebalanceTimeoutMs=_SOON_MS)
    b.answer("joined")
    b.send_sync()
    b.answer("the leader did not assign")
    group.describe("preparing again")
    b.heartbeat("preparing again")
    a.heartbeat("is out")
    b.join("leads now", rebalanceTimeoutMs=_SOON_MS)
    b.sync("assigns")
    c = group.member("c")
    c.send_join(3, rebalanceTimeoutMs=_SOON_MS)
    group.wait("PreparingRebalance")
    b.join("again", rebalanceTimeoutMs=_SOON_MS)
    c.answer("joined")
    b.sync("assigns again")
    group.wait("PreparingRebalance")
    b.heartbeat("the other did not sync")
    c.heartbeat("is out")


def session_ends(t):
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    a.join(None, 3)
    a.sync(None, 0)
    b.send_join(3, sessionTimeoutMs=_SOON_MS)
    group.wait("PreparingRebalance")
    a.send_join(3)
    for it in (a, b):
        it.answer()
    group.assign(a, b)
    group.wait("PreparingRebalance")
    group.describe("the session of b is over")
    a.heartbeat("is told")
    b.heartbeat("is out")
    a.join("alone")
    lone = Group(t, "lone")
    c = lone.member("c")
    c.join(None, 3, sessionTimeoutMs=_SOON_MS)
    c.sync(None, 0)
    lone.wait("Empty")
    lone.describe("nobody is left")
    c.heartbeat("is out")


def pending_member_holds_up(t):
    group = Group(t)
    a, b, c = (group.member(it) for it in "abc")
    group.gather(a, b)
    c.join("told its id", sessionTimeoutMs=_SOON_MS)
    a.send_join()
    group.wait("PreparingRebalance")
    b.send_join()
    b.waits("for c")
    a.answer("c did not come back")
    b.answer("c did not come back")
    c.join("too late")


def commits_in_each_state(t):
    topic = t.topic(1)
    group = Group(t)
    a, b = group.member("a"), group.member("b")

    def commits(label):
        for version in (2, 8, 9, 10):
            a.commit(label, topic, version)
            a.commit(f"{label}, older generation", topic, version,
                     generationIdOrMemberEpoch=a.generation - 1)  # fmt: skip
            a.commit(f"{label}, newer generation", topic, version,
                     generationIdOrMemberEpoch=a.generation + 1)  # fmt: skip
            a.commit(f"{label}, unknown member", topic, version, memberId="nobody")
            a.commit(f"{label}, no member", topic, version, memberId="",
                     generationIdOrMemberEpoch=-1)  # fmt: skip
            a.commit(f"{label}, member without generation", topic, version,
                     generationIdOrMemberEpoch=-1)  # fmt: skip
            a.commit(f"{label}, generation without member", topic, version, memberId="")

    a.join(None, 3)
    commits("completing")
    a.sync(None, 0)
    commits("stable")
    b.send_join(3)
    group.wait("PreparingRebalance")
    commits("preparing")
    a.join(None, 3)
    b.answer()
    group.assign(a, b)
    b.leave()
    a.leave()
    commits("empty")


def heartbeats_keep_it(t):
    group = Group(t)
    a = group.member("a")
    topic = t.topic(1)
    a.join(None, 3, sessionTimeoutMs=1500)
    a.sync(None, 0)
    for at in range(5):
        time.sleep(0.4)
        if at % 2:
            a.heartbeat(f"heartbeat {at}")
        else:
            a.commit(f"commit {at}", topic)
