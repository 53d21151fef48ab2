"""Groups that change between the classic and the consumer protocol while they have members."""

import struct

from ._consumers import counted, topic
from ._mixed import MixedGroup, subscription
from ._mixed import assignment as decoded


def assignment(topic, partitions, user_data=b"", version=1):
    """A consumer's assignment, as it is in SyncGroup."""
    parts = struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    data = struct.pack(">i", len(user_data)) + user_data
    return struct.pack(">hi", version, 1) + _text(topic) + parts + data


def _text(value):
    return struct.pack(">h", len(value)) + value.encode()


class ConvertedGroup(MixedGroup):
    """A group that is subscribed to one topic. It begins as a classic group."""

    def __init__(self, t, topic, name="group"):
        super().__init__(t, name)
        self.topic, self.shares = topic, {}
        # DescribeGroups shows subscriptions as bytes.
        t.mask_as(_text(topic).hex(), "<topic>")

    def gather_classic(self, shares, **fields):
        """Joins members of the classic protocol to one stable generation, with these partitions."""
        self.shares = shares
        return self.gather(*shares, **{"protocols": {"range": subscription([self.topic])}, **fields})

    def assign(self, leader, *others):
        everyone = (leader, *others)
        leader.send_sync(assignments=[
            {"memberId": it.member_id, "assignment": self._assignment_of(it)} for it in everyone
        ])  # fmt: skip
        for other in others:
            other.send_sync()
        for it in everyone:
            assert it.answer()["errorCode"] == 0

    def describe(self, label, version=6):
        """The transcript shows the numbers of partitions in assignments."""
        answer = self.t.call("DescribeGroups", version, {"groups": [self.id]})
        for member in answer["groups"][0]["members"]:
            found = decoded(member["memberAssignment"])
            if found != "nothing":
                counts = [len(partitions) for partitions in found["topics"].values()]
                found = {"version": found["version"], "partitions": counts}
            member["memberAssignment"] = found
        self.t.note_answer(label, "DescribeGroups", version, answer)

    def _assignment_of(self, member):
        share = self.shares[member]
        return share if isinstance(share, bytes) else assignment(self.topic, share)


def policy_decides(t):
    """A consumer joins a classic group, and leaves a group of both protocols."""
    name = topic(t, 4)
    group = ConvertedGroup(t, name, "was-classic")
    a = group.classic("a", name)
    group.gather_classic({a: [0, 1, 2, 3]})
    m = group.consumer("m", name)
    m.join("joins a classic group", shows=counted)
    group.describe("then")
    a.heartbeat("then")

    group = ConvertedGroup(t, name, "was-modern")
    n = group.consumer("n", name)
    n.join("founds a group")
    b = group.classic("b", name)
    b.enter("joins it")
    n.leave("leaves")
    group.describe("in the end")
    group.describe_consumers("in the end")
