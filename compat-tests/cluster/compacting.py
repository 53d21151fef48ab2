"""Writes into a compacted topic in steps, and shows what its replicas make of it.

Each step closes a segment in all partitions and waits until the running replicas have compacted it,
so that a replica makes at least one round in each step.
"""

import json
import time

from confluent_kafka import (
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from harness.segments import batches, checkpoint
from harness.topics import offsets_partition, read_to_end
from harness.transactions import transactional

TIMEOUT_S = 60
RETENTION_S = 0.3
OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"
# How the records of each partition are written.
PLAIN, ZSTD, IDEMPOTENT, TRANSACTIONAL = range(4)
COMPACTED = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "2000",
    "delete.retention.ms": str(int(1000 * RETENTION_S)),
    "min.cleanable.dirty.ratio": "0.01",
}


def create(cluster, topic, partitions, replicas, **config):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    new = NewTopic(
        topic,
        num_partitions=partitions,
        replica_assignment=[replicas] * partitions,
        config=COMPACTED | {name.replace("_", "."): value for name, value in config.items()},
    )
    admin.create_topics([new])[topic].result(TIMEOUT_S)


class Writers:
    """Writes into the four partitions of a topic, and knows what a consumer must read."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic, self.step = cluster, topic, 0
        self.last, self.committed = [{} for _ in range(4)], {}
        # Deleted keys that a replica still has, by node; see `leaves_and_leads`.
        self.resurrected = {}
        self.producers = [
            self._producer(),
            self._producer(**{"compression.type": "zstd"}),
            self._producer(**{"enable.idempotence": True}),
        ]
        # Its records are all replaced by those of others, so its last batch becomes empty.
        self.quiet = self._producer(**{"enable.idempotence": True})
        self.transactional = transactional(cluster.bootstrap, f"{topic}-writer")
        self.group = f"{topic}-group"
        self.reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": self.group})

    def _producer(self, **config):
        quick = {"linger.ms": 5, "acks": "all", "enable.idempotence": False}
        return Producer({"bootstrap.servers": self.cluster.bootstrap, **quick, **config})

    def write(self, producer, partition, pairs, counts=True):
        """Returns the offset of the last record."""
        errors, offsets = [], []

        def note(error, message):
            errors.append(error)
            offsets.append(message.offset())

        for key, value in pairs:
            producer.produce(self.topic, value, key, partition, on_delivery=note)
        assert producer.flush(TIMEOUT_S) == 0
        assert not any(errors), errors
        if counts:
            self.last[partition].update(pairs)
        return offsets[-1]

    def write_step(self):
        """Writes one step: keys that are set again, set once, and deleted in the next step."""
        n, self.step = self.step, self.step + 1
        pairs = [(f"hot-{m}", f"{n}-{m}-" + "v" * 40) for m in range(4)]
        pairs += [(f"once-{n}", f"{n}"), (f"brief-{n}", f"{n}"), (f"brief-{n - 1}", None)]
        for partition, producer in enumerate(self.producers):
            self.write(producer, partition, pairs)
        self._transactions(pairs)
        for m in range(4):
            self.committed[m] = 10 * n + m
            place = TopicPartition(self.topic, m, self.committed[m], metadata="m" * 500)
            from_coordinator(
                self.cluster,
                lambda place=place: self.reader.commit(offsets=[place], asynchronous=False),
            )

    def _transactions(self, pairs):
        for outcome in ("committed", "aborted"):
            self.transactional.begin_transaction()
            is_committed = outcome == "committed"
            written = pairs if is_committed else [(key, "aborted") for key, _ in pairs]
            self.write(self.transactional, TRANSACTIONAL, written, counts=is_committed)
            if is_committed:
                self.transactional.commit_transaction(TIMEOUT_S)
            else:
                self.transactional.abort_transaction(TIMEOUT_S)

    def roll(self):
        """Closes the last segment of each partition: two of these records do not fit a segment.
        Returns where the last segments begin, by partition directory."""
        large = [("roll", "r" * 1500)]
        for partition in range(4):
            self.write(self.producers[PLAIN], partition, large)
        ends = [self.write(self.producers[PLAIN], partition, large) for partition in range(4)]
        return {f"{self.topic}-{partition}": end for partition, end in enumerate(ends)}

    def offsets_partition(self):
        """Returns the partition directory that has the offsets of the group."""
        count = len(self.cluster.metadata([OFFSETS]).topics[OFFSETS])
        return f"{OFFSETS}-{offsets_partition(self.group, count)}"

    def check(self, leader):
        """Checks what a consumer reads from a leader, and which offsets the group has."""
        more = self.resurrected.get(leader.id, {})
        for partition, found in enumerate(read(self.cluster, self.topic)):
            last = self.last[partition] | more
            assert found == {key: it for key, it in last.items() if it is not None}, partition
        assert committed(self) == self.committed


def step(writers, nodes):
    """Writes, and waits until the nodes have compacted that, and more of both internal topics."""
    internal = [writers.offsets_partition(), f"{TRANSACTION_STATE}-0"]
    targets = {name: 1 + max(first_dirty(node, name) for node in nodes) for name in internal}
    writers.write_step()
    targets |= writers.roll()
    for node in nodes:
        for name, target in targets.items():
            writers.cluster.wait_until(
                f"node {node.id} has compacted {name} to {target}",
                lambda node=node, name=name, to=target: first_dirty(node, name) >= to,
            )


def first_dirty(node, name):
    return checkpoint(node.data / "cleaner-offset-checkpoint").get(name, 0)


def read(cluster, topic, isolation="read_committed"):
    """Returns the last value of each key, by partition. A tombstone counts as no value."""
    found = [{} for _ in range(4)]
    for it in read_to_end(cluster, [(topic, partition) for partition in range(4)], isolation):
        key, value = it.key().decode(), it.value()
        found[it.partition()][key] = value and value.decode()
    return [{key: it for key, it in last.items() if it is not None} for last in found]


def from_coordinator(cluster, ask):
    """Repeats a request while no coordinator responds to it. Returns the response."""

    def response():
        try:
            return ask()
        except KafkaException:
            return None

    return cluster.wait_until("the coordinator responds", response)


def committed(writers):
    """Returns what the coordinator of the group knows, by partition."""
    bootstrap = writers.cluster.bootstrap
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": writers.group})
    places = [TopicPartition(writers.topic, partition) for partition in range(4)]
    found = from_coordinator(writers.cluster, lambda: reader.committed(places, TIMEOUT_S))
    reader.close()
    return {it.partition: it.offset for it in found}


def sequences(run, topic, node):
    """Returns (producer id, epoch): last sequence of all producers that a replica remembers."""
    asked = f"--topic {topic} --partition {IDEMPOTENT} --broker-id {node.id}"
    printed = run(f"kafka-transactions describe-producers {asked}").ok().lines[1:]
    rows = (line.split() for line in printed)
    return {(int(row[0]), int(row[1])): int(row[3]) for row in rows}


def lead(cluster, run, topics, nodes):
    """Gives all partitions replicas on these nodes. The first one leads."""
    replicas = [node.id for node in nodes]
    plan = cluster.dir / "plan.json"
    moves = [
        {"topic": topic, "partition": index, "replicas": replicas}
        for topic in topics
        for index in cluster.metadata([topic]).topics[topic]
    ]
    plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    run(f"kafka-reassign-partitions --reassignment-json-file {plan} --execute").ok()
    cluster.wait_until_in_sync()
    cluster.elect_preferred()


def records(node, topic, partition):
    """Returns (offset, value) of the last record of each key in the files of a replica."""
    found = {}
    for batch in batches(log_of(node, topic, partition)):
        if not batch.is_control:
            found.update((it.key.decode(), (it.offset, it.value)) for it in batch.records)
    return {key: it for key, it in found.items() if it[1] is not None}


def log_of(node, topic, partition):
    logs = sorted((node.data / f"{topic}-{partition}").glob("*.log"))
    return b"".join(log.read_bytes() for log in logs)


def leaves_and_leads(writers, run, leave, away, others, rounds):
    """Ends a follower by `leave`, compacts the other replicas in some rounds, and lets the follower
    lead the topic and both internal topics.

    One key comes back with it: the key was deleted in its absence, and its tombstone was removed
    after `delete.retention.ms`. Apache Kafka cannot prevent that either.
    """
    cluster, topic, everyone = writers.cluster, writers.topic, [away, *others]
    writers.write(writers.quiet, IDEMPOTENT, [("hot-0", "quiet")])
    step(writers, everyone)
    n = writers.step - 1
    cluster.wait_until_in_sync()
    leave()
    for _ in range(rounds - 1):
        step(writers, others)
    time.sleep(RETENTION_S)
    step(writers, others)
    writers.check(others[0])
    known = sequences(run, topic, others[0])
    assert len(known) == 2, known

    cluster.start(away.id)
    cluster.wait_until_in_sync()
    assert sequences(run, topic, away) == known
    writers.resurrected[away.id] = {f"brief-{n}": f"{n}"}
    writers.transactional.begin_transaction()
    writers.write(writers.transactional, TRANSACTIONAL, [("open", "during the election")])
    lead(cluster, run, [topic, OFFSETS, TRANSACTION_STATE], everyone)
    writers.transactional.commit_transaction(TIMEOUT_S)
    writers.check(away)

    writers.write(writers.quiet, IDEMPOTENT, [("quiet", "again")])
    step(writers, everyone)
    writers.check(away)
    now = sequences(run, topic, away)
    assert now.keys() == known.keys(), "no producer needed another epoch"
    assert all(now[producer] > known[producer] for producer in known), (known, now)
    gone = {key for keys in writers.resurrected.values() for key in keys}
    for partition in range(4):
        found = [records(node, topic, partition) for node in everyone]
        found = [{key: it for key, it in last.items() if key not in gone} for last in found]
        assert all(it == found[0] for it in found), f"partition {partition}: {found}"
