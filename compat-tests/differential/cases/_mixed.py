"""Members of the classic protocol in consumer groups (KIP-848)."""

import struct
import time

from ._consumers import ConsumerGroup
from ._members import Member

MEMBER_ID_REQUIRED = 79
_NEWEST = 3
# Of an id that the coordinator makes.
_ID_LENGTH = 22


def _text(value):
    return b"\xff\xff" if value is None else struct.pack(">h", len(value)) + value.encode()


def _partitions(owned):
    rows = [_text(topic) + struct.pack(f">i{len(parts)}i", len(parts), *parts)
            for topic, parts in owned.items()]  # fmt: skip
    return struct.pack(">i", len(rows)) + b"".join(rows)


def subscription(topics, owned=(), version=_NEWEST, generation=-1, rack=None, user_data=None):
    """A consumer's subscription in the fields of this version."""
    data = struct.pack(">hi", version, len(topics)) + b"".join(map(_text, topics))
    data += struct.pack(">i", -1) if user_data is None else struct.pack(">i", len(user_data)) + user_data
    if version >= 1:
        data += _partitions(dict(owned))
    if version >= 2:
        data += struct.pack(">i", generation)
    if version >= 3:
        data += _text(rack)
    return data


def assignment(data):
    """The version, the partitions by topic and the user data of an assignment."""
    if not data:
        return "nothing"
    version, count = struct.unpack_from(">hi", data)
    at, topics = 6, {}
    for _ in range(count):
        (length,) = struct.unpack_from(">h", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        (parts,) = struct.unpack_from(">i", data, at)
        topics[name] = sorted(struct.unpack_from(f">{parts}i", data, at + 4))
        at += 4 + 4 * parts
    return {"version": version, "topics": topics, "rest": data[at:].hex()}


class MixedGroup(ConsumerGroup):
    """A consumer group with members of both protocols."""

    def classic(self, name, *topics, instance_id=None):
        return Classic(self, name, topics, instance_id)


class Classic(Member):
    """A member of the classic protocol. It owns what its last SyncGroup has returned."""

    def __init__(self, group, name, topics, instance_id=None):
        super().__init__(group, name, instance_id)
        self.topics, self.owned = topics, {}
        self.shows = lambda answer: answer

    def subscribing(self, *assignors, **fields):
        """The protocols of a JoinGroup."""
        data = subscription(self.topics, **{"owned": self.owned, **fields})
        return dict.fromkeys(assignors or ("range",), data)

    def answer(self, label=None):
        """The transcript shows assignments decoded, and the ids of members by their names."""
        api, version, correlation_id = self._waiting.pop(0)
        answer = self._connection.receive(api, version, correlation_id)
        if api == "JoinGroup" and isinstance(answer, dict):
            self.member_id = answer["memberId"] or self.member_id
            if len(self.member_id) == _ID_LENGTH:
                self.t.mask_as(self.member_id, f"id of {self.name}")
            if answer["errorCode"] == 0:
                self.generation = answer["generationId"]
        if api == "SyncGroup" and isinstance(answer, dict):
            decoded = assignment(answer["assignment"])
            if answer["errorCode"] == 0:
                self.owned = decoded["topics"]
            answer = {**answer, "assignment": decoded}
        if label:
            shown = self.shows(_named(answer))
            self.t.note_answer(f"{self.name}: {label}", api, version, shown)
        return answer

    def enter(self, label=None, version=9, protocols=None, **fields):
        """Joins. If the coordinator makes an id first, joins again with it."""
        protocols = protocols or self.subscribing()
        answer = self.join(label, version, protocols, **fields)
        if answer["errorCode"] == MEMBER_ID_REQUIRED:
            label = label and f"{label}, with its id"
            answer = self.join(label, version, protocols, **fields)
        return answer

    def leaves(self, label=None, version=5):
        answer = self.leave(label, version)
        self.member_id, self.owned = "", {}
        return answer


def _named(answer):
    """Lists topics by name: a transcript masks values but not keys."""
    if isinstance(answer, dict) and isinstance(found := answer.get("assignment"), dict):
        topics = [{"topic": topic, "partitions": parts} for topic, parts in found["topics"].items()]
        return {**answer, "assignment": {**found, "topics": topics}}
    return answer


def reconcile(*members, partitions):
    """Lets members of both protocols send heartbeats until they own this many partitions, in a
    stable group."""
    deadline = time.monotonic() + 20
    while True:
        for member in members:
            if not isinstance(member, Classic):
                assert member.call(topicPartitions=member.owning())["errorCode"] == 0
            elif member.heartbeat()["errorCode"] != 0:
                joined = member.enter()
                assert joined["errorCode"] == 0, joined
                member.sync()
        owned = sum(len(parts) for member in members for parts in member.owned.values())
        if owned == partitions and members[0].group.described()["groupState"] == "Stable":
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the members own {owned} partitions, not {partitions}")
        time.sleep(0.05)
