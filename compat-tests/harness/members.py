"""Members of live groups, and what shows whether a rebalance has disturbed them."""

import json
import threading
import time
from itertools import chain

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from . import wire

TIMEOUT_S = 120
GROUPS = "kafka-consumer-groups"
# Errors of a commit whose member the coordinator does not know, or knows with another epoch.
FENCED = {
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
}


class Member:
    """A librdkafka consumer, and the partitions that it has lost by rebalances."""

    def __init__(self, node, group, topics, **config):
        self.revoked, self.errors = [], []
        self.consumer = Consumer(
            {
                "bootstrap.servers": node.bootstrap,
                "group.id": group,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "topic.metadata.refresh.interval.ms": 500,
                "reconnect.backoff.max.ms": 500,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
                "on_commit": self._note_commit,
                **config,
            }
        )
        self.consumer.subscribe(topics, on_revoke=lambda _, lost: self.revoked.extend(lost))

    def _note_commit(self, error, _):
        if error is not None and error.code() in FENCED:
            self.errors.append(error.name())

    def owned(self):
        """Lets the consumer work for a moment. Returns what it owns: (topic, partition)."""
        self.work()
        return self.assigned()

    def work(self):
        for message in self.consumer.consume(500, timeout=0.1):
            if message.error():
                self.errors.append(message.error().name())

    def assigned(self):
        return {(it.topic, it.partition) for it in self.consumer.assignment()}

    def close(self):
        self.consumer.close()


class JavaMember:
    """A kafka-verifiable-consumer. It commits after each poll, and prints its rebalances."""

    def __init__(self, shell, group, topic, protocol):
        options = f"--topic {topic} --group-id {group} --group-protocol {protocol}"
        self._running = shell.start(f"kafka-verifiable-consumer {options} --reset-policy earliest")
        self._forgotten = 0

    def _events(self, *names):
        events = [json.loads(line) for line in self._running.peek().lines]
        return [event for event in events if event["name"] in names]

    def _revocations(self):
        return [it for it in self._events("partitions_revoked") if it["partitions"]]

    @property
    def revoked(self):
        return self._revocations()[self._forgotten :]

    @revoked.setter
    def revoked(self, none):
        assert none == []
        self._forgotten = len(self._revocations())

    @property
    def errors(self):
        return [it["error"] for it in self._events("offsets_committed") if not it["success"]]

    def assigned(self):
        owned = set()
        for event in self._events("partitions_assigned", "partitions_revoked"):
            places = {(it["topic"], it["partition"]) for it in event["partitions"]}
            owned = owned - places if event["name"] == "partitions_revoked" else owned | places
        return owned

    def close(self):
        self._running.stop()


class LiveGroup:
    """A group whose members read and commit what `work` writes. A thread lets those of librdkafka
    work."""

    def __init__(self, cluster, shell, name, protocol="consumer"):
        self.name, self.protocol = name, protocol
        self.members, self.cluster, self._shell = [], cluster, shell
        self._topics, self._ends, self._before = [], {}, None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._is_closed:
            for member in list(self.members):
                if isinstance(member, Member):
                    member.work()
            time.sleep(0.01)

    def join(self, topics, count):
        """Adds librdkafka consumers with this subscription."""
        for _ in range(count):
            config = {
                "client.id": f"librdkafka-{len(self.members)}",
                "group.protocol": self.protocol,
                "enable.auto.commit": True,
                "auto.commit.interval.ms": 100,
            }
            self.members.append(Member(self.cluster, self.name, topics, **config))

    def join_java(self, topic):
        """Adds a Java consumer of one topic."""
        self.members.append(JavaMember(self._shell, self.name, topic, self.protocol))

    def coordinator(self):
        """Returns the node that coordinates the group, or None."""
        for node in self.cluster.running():
            try:
                found = wire.coordinator(node.address, self.name)
            except OSError:
                continue
            if found is not None:
                return found
        return None

    def wait_until_coordinated_by(self, node):
        """Waits until this node coordinates the group and has all offsets."""

        def has_it():
            return self.coordinator() == node and self._has_committed_all()

        self.cluster.wait_until(f"node {node} coordinates {self.name}", has_it, TIMEOUT_S)

    def settle(self, topics):
        """Waits until the members have all partitions of these topics and confirmed their epochs.
        What they have then is compared by `check_undisturbed`."""
        self._topics = topics
        try:
            self.cluster.wait_until(f"{self.name} is settled", self._is_settled, TIMEOUT_S)
        except AssertionError:
            print(f"{self.name}: {self._state()}, {self._places()}")
            raise
        for member in self.members:
            member.revoked = []
        self._before = self._state()

    def _is_settled(self):
        owned = [member.assigned() for member in self.members]
        if not all(owned) or sorted(chain(*owned)) != sorted(self._places()):
            return False
        if self.protocol == "classic":
            return True
        group, members = epochs(self._shell, self.name)
        return set(members.values()) == {group} and len(members) == len(self.members)

    def _places(self):
        topics = self.cluster.metadata(self._topics).topics
        return {(topic, partition) for topic in self._topics for partition in topics[topic]}

    def _state(self):
        known = epochs(self._shell, self.name) if self.protocol == "consumer" else None
        return known, [member.assigned() for member in self.members]

    def check_undisturbed(self):
        """Checks that there was no rebalance since `settle`: all epochs are the same, and the
        members have kept their partitions all the time."""
        state, none = self._state(), [[]] * len(self.members)
        assert state == self._before, f"{self.name}: {state}, before: {self._before}"
        revoked = [member.revoked for member in self.members]
        assert revoked == none, f"{self.name}: revoked {revoked}"
        errors = [member.errors for member in self.members]
        assert errors == none, f"{self.name}: {errors}"

    def work(self, records=20):
        """Writes records to each partition, and waits until the group has committed all."""
        config = {"bootstrap.servers": self.cluster.bootstrap, "enable.idempotence": True}
        # A new producer, which knows new partitions.
        producer, errors = Producer(config), []
        for place in self._places():
            self._ends[place] = self._ends.get(place, 0) + records
            for _ in range(records):
                topic, partition = place
                producer.produce(
                    topic, b"record", partition=partition, on_delivery=lambda e, _: errors.append(e)
                )
        assert producer.flush(TIMEOUT_S) == 0
        assert not any(errors), errors
        self.cluster.wait_until(f"{self.name} has no lag", self._has_committed_all, TIMEOUT_S)

    def _has_committed_all(self):
        """Whether the coordinator has the end of each partition as the committed offset."""
        coordinator = self.coordinator()
        try:
            address = self.cluster[coordinator].address
            return wire.committed(address, self.name) == self._ends
        except (KeyError, OSError):
            return False

    def close(self):
        self._is_closed = True
        self._thread.join(TIMEOUT_S)
        for member in self.members:
            member.close()


def create_topic(cluster, topic, partitions, replicas=-1):
    """Creates a topic, and waits until all brokers know it."""
    client = admin_client(cluster)
    client.create_topics([NewTopic(topic, partitions, replicas)])[topic].result(TIMEOUT_S)
    wait_until_known(cluster, topic, partitions)
    return topic


def grow(cluster, topic, partitions):
    """Adds partitions to a topic, and waits until all brokers know them."""
    client = admin_client(cluster)
    client.create_partitions([NewPartitions(topic, partitions)])[topic].result(TIMEOUT_S)
    wait_until_known(cluster, topic, partitions)


def admin_client(cluster):
    running = ",".join(node.bootstrap for node in cluster.running())
    return AdminClient({"bootstrap.servers": running})


def wait_until_known(cluster, topic, partitions):
    def is_known():
        seen = [node.metadata([topic]) for node in cluster.running()]
        return all(it and len(it.topics.get(topic, ())) == partitions for it in seen)

    cluster.wait_until(f"all brokers know the partitions of {topic}", is_known, TIMEOUT_S)


def wait_for(what, is_reached, within=TIMEOUT_S):
    deadline = time.monotonic() + within
    while not is_reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def epochs(shell, group):
    """Returns the epoch of a group of the consumer protocol, and those of its members by client."""
    rows = shell(f"{GROUPS} --describe --group {group} --state --verbose", transcript=False).ok()
    head, row = (line.split() for line in rows.lines if line.strip())
    # The columns before COORDINATOR have one word each; its value has two.
    state = dict(zip(reversed(head), reversed(row)))
    rows = shell(f"{GROUPS} --describe --group {group} --members --verbose", transcript=False).ok()
    head, *members = (line.split() for line in rows.lines if line.strip())
    at, client = head.index("CURRENT-EPOCH"), head.index("CLIENT-ID")
    return state["GROUP-EPOCH"], {member[client]: member[at] for member in members}
