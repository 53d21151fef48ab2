"""The group APIs with at most one member, in every version."""

from ._members import Group, subscription

_ODD_IDS = ("", ".", "..", "a b", "x" * 249, "x" * 250, "é")


def join(t):
    for version in range(10):
        group = Group(t, f"group-{version}")
        dynamic = group.member("a")
        dynamic.join("first", version)
        if version >= 4:
            dynamic.join("with its id", version, reason="because")
        dynamic.join("again", version)
        dynamic.sync(None, 0)
        dynamic.join("as the leader of a stable group", version)
        if version >= 5:
            static = Group(t, f"static-{version}").member("b", "i")
            static.join("first", version)
            static.join("again", version)


def join_refused(t):
    group = Group(t)
    a = group.member("a")
    for version in (0, 3, 5, 9):
        for timeout in (-1, 0, 299, 1_800_001, 2**31 - 1):
            a.join(f"session timeout {timeout}", version, sessionTimeoutMs=timeout)
        a.join("no group id", version, groupId="")
        a.join("an unknown member", version, memberId="nobody")
        a.join("no protocols", version, protocols=())
        a.join("no protocol type", version, protocolType="")
        group.describe(f"after version {version}")
    a.join("a null group id", 5, groupId=None)
    a.join("no rebalance timeout", 3, rebalanceTimeoutMs=0)
    for instance in _ODD_IDS:
        static = Group(t, "static").member("b", instance)
        static.instance_id = instance
        static.join(f"instance {instance[:9]!r} of {len(instance)}", 7)
    odd = Group(t, "odd").member("c")
    odd.join("group ids may have spaces", 3, groupId="a b")
    odd.leave(None, 3, groupId="a b")


def another_member_is_asked_for(t):
    """A member that received its id (MEMBER_ID_REQUIRED) and has not rejoined with it."""
    group = Group(t)
    a, b = group.member("a"), group.member("b")
    a.join("told to come back")
    group.describe("while it is away")
    group.describe("while it is away", 6)
    a.heartbeat("too early", generationId=0)
    a.sync("too early", generationId=0)
    a.join("with an instance id", 5, groupInstanceId="i")
    a.leave("and leaves")
    a.join("after leaving")
    b.member_id = ""
    b.join("another that is told")
    b.join("comes back with another type", 9, protocolType="other")
    b.join("comes back in an older version", 3)
    b.sync("in that generation", 0)
    group.describe("then")


def sync(t):
    for version in range(6):
        group = Group(t, f"group-{version}")
        a = group.member("a")
        a.sync("of no group", version, memberId="nobody", generationId=0)
        a.join(None, 3)
        a.sync("no group id", version, groupId="")
        a.sync("wrong generation", version, generationId=7)
        a.sync("generation -1", version, generationId=-1)
        a.sync("unknown member", version, memberId="nobody")
        a.sync("no member id", version, memberId="")
        part = [{"memberId": a.member_id, "assignment": b"part"}]
        if version >= 5:
            a.sync("another protocol", version, part, protocolName="other")
            a.sync("another type", version, part, protocolType="other")
            a.sync("no protocol", version, part, protocolName=None)
            a.sync("no type", version, part, protocolType=None, protocolName=None)
        a.sync("assigns", version, part)
        a.sync("assigns again", version, [{"memberId": a.member_id, "assignment": b"new"}])
        a.sync("asks", version)
        if version >= 3:
            a.sync("an instance id it has not", version, groupInstanceId="i")
        a.leave(None, 3)
        a.sync("of an empty group", version)


def sync_assigns_oddly(t):
    group = Group(t)
    a = group.member("a")
    a.join(None, 3)
    one = {"memberId": a.member_id, "assignment": b"first"}
    a.sync("twice and to nobody", 5, [one, {"memberId": "nobody", "assignment": b"x"},
                                      {**one, "assignment": b"second"}])  # fmt: skip
    group.describe("then")
    a.join(None, 3)
    a.sync("nothing", 5)


def heartbeat(t):
    for version in range(5):
        group = Group(t, f"group-{version}")
        a = group.member("a")
        a.heartbeat("of no group", version, memberId="nobody", generationId=0)
        a.join(None, 3)
        a.heartbeat("before the sync", version)
        a.sync(None, 0)
        a.heartbeat("stable", version)
        a.heartbeat("no group id", version, groupId="")
        a.heartbeat("wrong generation", version, generationId=7)
        a.heartbeat("generation -1", version, generationId=-1)
        a.heartbeat("unknown member", version, memberId="nobody")
        a.heartbeat("unknown member, wrong generation", version, memberId="no", generationId=7)
        if version >= 3:
            a.heartbeat("an instance id it has not", version, groupInstanceId="i")
        a.leave(None, 3)
        a.heartbeat("of an empty group", version)


def leave(t):
    for version in range(6):
        group = Group(t, f"group-{version}")
        a = group.member("a")
        a.leave("no group", version)
        group.gather(a)
        gone = a.member_id
        a.leave("no group id", version, groupId="")
        if version < 3:
            a.leave("unknown member", version, memberId="nobody")
            a.leave("no member id", version, memberId="")
        else:
            a.leave("unknown member", version, members=[{"memberId": "nobody"}])
            a.leave("no member id", version, members=[{"memberId": ""}])
            a.leave("nobody", version, members=[])
            a.leave("an instance id it has not", version,
                    members=[{"memberId": gone, "groupInstanceId": "i"}])  # fmt: skip
            a.leave("an unknown instance id", version,
                    members=[{"memberId": "", "groupInstanceId": "i"}])  # fmt: skip
        a.leave("leaves", version)
        a.leave("leaves again", version)
        group.describe(f"after version {version}")
    group = Group(t, "twice")
    a = group.member("a")
    group.gather(a)
    one = {"memberId": a.member_id, "reason": "because"}
    a.leave("twice in one", 5, members=[one, one, {"memberId": "nobody"}])


def describe(t):
    group, unknown = Group(t), t.new_name("unknown")
    a = group.member("a", "i")

    def everything(label):
        for version in range(7):
            body = {"groups": [group.id, unknown], "includeAuthorizedOperations": version % 2}
            t.ask(label, "DescribeGroups", version, body)

    everything("no group")
    a.join(None, 5)
    everything("completing")
    a.sync(None, 5, [{"memberId": a.member_id, "assignment": b"part"}])
    everything("stable")
    a.leave()
    everything("empty")
    t.ask("nothing", "DescribeGroups", 5, {"groups": []})
    t.ask("twice", "DescribeGroups", 5, {"groups": [group.id, group.id]})
    t.ask("no group id", "DescribeGroups", 5, {"groups": [""]})
    t.ask("no group id", "DescribeGroups", 6, {"groups": [""]})


def list_groups(t):
    stable, empty, other = Group(t, "stable"), Group(t, "empty"), Group(t, "other")
    stable.gather(stable.member("a"))
    e = empty.member("e")
    empty.gather(e)
    e.leave()
    other.member("o").join(None, 3, {"p": b"x"}, protocolType="other")
    topic = t.topic(1)
    simple = Group(t, "simple").member("s")
    simple.commit(None, topic, 2)
    own = {stable.id, empty.id, other.id, simple.group.id}

    def ask(label, version, **filters):
        answer = t.call("ListGroups", version, filters)
        if isinstance(answer, dict):
            answer["groups"] = [it for it in answer["groups"] if it["groupId"] in own]
        t.note_answer(label, "ListGroups", version, answer)

    for version in range(6):
        ask("all", version)
        for states in (["Stable"], ["stable"], ["Empty", "Stable"], ["Nonsense"], [""],
                       ["CompletingRebalance"], ["Dead"], ["Assigning"]) if version >= 4 else ():  # fmt: skip
            ask(f"states {states}", version, statesFilter=states)
    for types in (["classic"], ["Classic"], ["consumer"], ["share"], ["nonsense"], [""],
                  ["classic", "consumer"], ["streams"]):  # fmt: skip
        ask(f"types {types}", 5, typesFilter=types)
    ask("types and states", 5, typesFilter=["classic"], statesFilter=["Empty"])


def delete_groups(t):
    topic = t.topic(1)
    for version in range(3):
        stable, empty, simple = (Group(t, f"{it}-{version}") for it in ("stable", "empty", "simple"))
        stable.gather(stable.member("a"))
        e = empty.member("e")
        empty.gather(e)
        e.leave()
        simple.member("s").commit(None, topic, 2)
        ids = [stable.id, empty.id, simple.id, t.new_name("unknown"), ""]
        t.ask("some", "DeleteGroups", version, {"groupsNames": ids})
        t.ask("again", "DeleteGroups", version, {"groupsNames": ids})
        t.ask("nothing", "DeleteGroups", version, {"groupsNames": []})
        again = Group(t, f"again-{version}")
        again.member("s").commit(None, topic, 2)
        t.ask("twice", "DeleteGroups", version, {"groupsNames": [again.id, again.id]})
        t.ask(f"what {version} had committed", "OffsetFetch", 8, {"groups": [
            {"groupId": it, "topics": None} for it in (simple.id, again.id)]})  # fmt: skip
    for group in (stable, empty):
        group.describe(f"{group.id}".split("-")[-2])


def protocols(t):
    """Descriptions of stable groups: their protocols, and subscriptions that cannot be decoded."""
    for label, kind, offered in (
        ("not consumers", "connect", {"x": b"anything"}),
        ("unreadable", "consumer", {"range": b"\0"}),
        ("empty", "consumer", {"range": b""}),
        ("no topics", "consumer", {"range": subscription()}),
        ("two", "consumer", {"second": subscription("a"), "first": subscription("b")}),
    ):
        group = Group(t, label.replace(" ", "-"))
        a = group.member("a")
        a.join(label, 3, offered, protocolType=kind)
        a.sync(label, 5, protocolType=kind, protocolName=next(iter(offered)))
        group.describe(f"{label}, then")
        a.join(f"{label}, other type", 3, offered, protocolType="other")
        a.leave(f"{label}, leaves", 3)
        group.describe(f"{label}, empty")
        a.member_id = ""
        a.join(f"{label}, another type now", 3, {"y": b"z"}, protocolType="third")
