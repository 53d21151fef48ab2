"""Members of consumer groups (KIP-848). All use the connection of the case: heartbeats do not wait
for other members."""

import time

from ._members import Group

_STABLE_TIMEOUT_S = 20
_PERIOD_S = 0.05
# Apache Kafka tells its group coordinator of a new topic after the topic's leader serves.
_TOPIC_S = 0.3


def topic(t, partitions=1):
    """A topic that the group coordinator knows."""
    name = t.topic(partitions)
    time.sleep(_TOPIC_S)
    return name


def counted(answer):
    """A response with the numbers of assigned partitions in place of the partitions. Which member
    of several gets which partitions depends on Kafka's hash tables."""
    if isinstance(answer, dict):
        return {key: len(it) if key == "partitions" and it else counted(it)
                for key, it in answer.items()}  # fmt: skip
    return [counted(it) for it in answer] if isinstance(answer, list) else answer


class ConsumerGroup(Group):
    """A consumer group of one case."""

    def consumer(self, name, *topics, **identity):
        return Consumer(self, name, topics, **identity)

    def describe_consumers(self, label, version=1, shows=lambda answer: answer):
        asked = {"groupIds": [self.id]}
        answer = self.t.call("ConsumerGroupDescribe", version, asked)
        for member in (it for group in answer["groups"] for it in group["members"]):
            member["subscribedTopicNames"].sort(key=self.t.masked)
        self.t.note_answer(label, "ConsumerGroupDescribe", version, shows(answer))

    def described(self):
        return self.t.call("ConsumerGroupDescribe", 1, {"groupIds": [self.id]})["groups"][0]


class Consumer:
    """A member. `name` is its member id and its name in the transcript."""

    def __init__(self, group, name, topics, **identity):
        self.group, self.t, self.name, self.topics = group, group.t, name, topics
        self.identity = {"groupId": group.id, "memberId": name, **identity}
        self.epoch = 0
        self.owned = {}

    def _joining(self):
        return {"memberEpoch": 0, "rebalanceTimeoutMs": 60_000, "topicPartitions": [],
                "subscribedTopicNames": list(self.topics)}  # fmt: skip

    def call(self, version=1, **fields):
        """Sends a heartbeat, and takes over what the response says."""
        body = {**self.identity, "memberEpoch": self.epoch, **fields}
        answer = self.t.call("ConsumerGroupHeartbeat", version, body)
        if isinstance(answer, dict) and answer["errorCode"] == 0:
            self.epoch = answer["memberEpoch"]
            if answer["assignment"] is not None:
                self.owned = {
                    it["topicId"]: it["partitions"] for it in answer["assignment"]["topicPartitions"]
                }
        return answer

    def ask(self, label, version=1, shows=lambda answer: answer, **fields):
        """A heartbeat that is part of the transcript."""
        answer = self.call(version, **fields)
        label = f"{self.name}: {label}"
        self.t.note_answer(label, "ConsumerGroupHeartbeat", version, shows(answer))
        return answer

    def join(self, label=None, version=1, shows=lambda answer: answer, **fields):
        self.epoch = 0
        fields = {**self._joining(), **fields}
        return self.ask(label, version, shows, **fields) if label else self.call(version, **fields)

    def owning(self):
        """What the member reports as its own: all that it was assigned."""
        return [{"topicId": it, "partitions": parts} for it, parts in self.owned.items()]

    def leave(self, label=None, version=1, epoch=-1, **fields):
        fields = {"memberEpoch": epoch, **fields}
        return self.ask(label, version, **fields) if label else self.call(version, **fields)


def settle(*members, partitions, above=0):
    """Sends heartbeats that report the assigned partitions until the members own this many, in a
    group epoch above this one. A regular expression is resolved some time after the heartbeat."""
    deadline = time.monotonic() + _STABLE_TIMEOUT_S
    while True:
        for member in members:
            answer = member.call(topicPartitions=member.owning())
            assert answer["errorCode"] == 0, answer
        owned = sum(len(parts) for member in members for parts in member.owned.values())
        group = members[0].group.described()
        if owned == partitions and group["groupState"] == "Stable" and group["groupEpoch"] > above:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the members own {owned} partitions, not {partitions}")
        time.sleep(_PERIOD_S)
