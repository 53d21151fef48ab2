"""Members of a group, each on its own connection, because a join waits for the other members."""

import struct
import time

from ..wire import SILENT

_MEMBER_ID_REQUIRED = 79
_STATE_TIMEOUT_S = 10
# How long to wait before a request counts as waiting in the broker.
_PATIENCE_S = 0.15


def subscription(*topics, user_data=b"", version=0):
    """A consumer's subscription, as it is in the metadata of JoinGroup."""
    names = b"".join(struct.pack(">h", len(it)) + it.encode() for it in topics)
    data = struct.pack(">hi", version, len(topics)) + names
    return data + struct.pack(">i", len(user_data)) + user_data


class Group:
    """A group of one case. `name` is its name in the transcript."""

    def __init__(self, t, name="group"):
        self.t, self.name = t, name
        self.id = t.new_name(name)
        t.find_coordinator(self.id)

    def member(self, name, instance_id=None):
        return Member(self, name, instance_id)

    def state(self):
        answer = self.t.call("DescribeGroups", 5, {"groups": [self.id]})
        return answer["groups"][0]["groupState"]

    def wait(self, state):
        """Waits until the group is in this state."""
        deadline = time.monotonic() + _STATE_TIMEOUT_S
        while (now := self.state()) != state:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the group is {now} and not {state}")
            time.sleep(0.005)

    def describe(self, label, version=5):
        self.t.ask(label, "DescribeGroups", version, {"groups": [self.id]})

    def gather(self, *members, **fields):
        """Joins and syncs the members to one stable generation. The first one is its leader."""
        joined = []
        for member in members:
            for old in joined:
                assert self.state() == "Stable", old
            member.send_join(member.version(), **fields)
            if joined:
                self.wait("PreparingRebalance")
                for old in joined:
                    old.send_join(old.version(), **fields)
            joined.append(member)
            for it in joined:
                answer = it.answer()
                if answer["errorCode"] == _MEMBER_ID_REQUIRED:
                    raise AssertionError("version() asks for no member id")
                assert answer["errorCode"] == 0, answer
            self.assign(*joined)
        return members

    def assign(self, leader, *others):
        """The leader sends assignments, and all members sync."""
        everyone = (leader, *others)
        parts = [
            {"memberId": it.member_id, "assignment": b"part of " + it.name.encode()}
            for it in everyone
        ]
        leader.send_sync(assignments=parts)
        for other in others:
            other.send_sync()
        for it in everyone:
            assert it.answer()["errorCode"] == 0


class Member:
    def __init__(self, group, name, instance_id=None):
        self.group, self.t = group, group.t
        self.name, self.instance_id = name, instance_id
        self.member_id, self.generation = "", -1
        self._connection = self.t.connect(name)
        self._waiting = []

    def reconnect(self):
        """Connects again after a restart, with the same member id."""
        self._connection = self.t.connect(self.name)
        return self

    def version(self):
        """A version of JoinGroup in which this member joins without MEMBER_ID_REQUIRED."""
        return 5 if self.instance_id else 3

    def identity(self):
        return {
            "groupId": self.group.id,
            "memberId": self.member_id,
            "groupInstanceId": self.instance_id,
        }

    def send(self, api, version, body):
        self._waiting.append((api, version, self._connection.send(api, version, body)))

    def answer(self, label=None):
        """Receives the response to the oldest request. A label adds it to the transcript."""
        api, version, correlation_id = self._waiting.pop(0)
        answer = self._connection.receive(api, version, correlation_id)
        if api == "JoinGroup" and isinstance(answer, dict):
            self.member_id = answer["memberId"] or self.member_id
            if answer["errorCode"] == 0:
                self.generation = answer["generationId"]
        if label:
            self.t.note_answer(f"{self.name}: {label}", api, version, answer)
        return answer

    def waits(self, label):
        """Adds to the transcript whether the oldest request still waits for its response."""
        frame = self._connection.peek(_PATIENCE_S)
        self.t.note(f"{self.name}: {label}", "waits" if frame == SILENT else "is answered")

    def ask(self, label, api, version, body):
        self.send(api, version, body)
        return self.answer(label)

    def send_join(self, version=9, protocols=("range",), **fields):
        if not isinstance(protocols, dict):
            protocols = dict.fromkeys(protocols, subscription("t"))
        listed = [{"name": name, "metadata": data} for name, data in protocols.items()]
        body = {**self.identity(), "sessionTimeoutMs": 30_000, "rebalanceTimeoutMs": 30_000,
                "protocolType": "consumer", "protocols": listed}  # fmt: skip
        self.send("JoinGroup", version, {**body, **fields})

    def join(self, label=None, version=9, protocols=("range",), **fields):
        self.send_join(version, protocols, **fields)
        return self.answer(label)

    def send_sync(self, version=5, assignments=(), **fields):
        body = {**self.identity(), "generationId": self.generation, "protocolType": "consumer",
                "protocolName": "range", "assignments": list(assignments)}  # fmt: skip
        self.send("SyncGroup", version, {**body, **fields})

    def sync(self, label=None, version=5, assignments=(), **fields):
        self.send_sync(version, assignments, **fields)
        return self.answer(label)

    def heartbeat(self, label=None, version=4, **fields):
        body = {**self.identity(), "generationId": self.generation}
        return self.ask(label, "Heartbeat", version, {**body, **fields})

    def leave(self, label=None, version=5, **fields):
        if version < 3:
            body = {"groupId": self.group.id, "memberId": self.member_id}
        else:
            who = {"memberId": self.member_id, "groupInstanceId": self.instance_id}
            body = {"groupId": self.group.id, "members": [who]}
        return self.ask(label, "LeaveGroup", version, {**body, **fields})

    def commit(self, label, topic, version=9, offset=1, **fields):
        body = {**self.identity(), "generationIdOrMemberEpoch": self.generation}
        rows = [{"partitionIndex": 0, "committedOffset": offset}]
        named = {"topicId": self.t.id_of(topic)} if version >= 10 else {"name": topic}
        body["topics"] = [{**named, "partitions": rows}]
        return self.ask(label, "OffsetCommit", version, {**body, **fields})
