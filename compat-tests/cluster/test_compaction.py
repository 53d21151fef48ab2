"""Replicas, each of which compacts its log on its own: a follower that was away during many rounds,
and a replica that begins with a copy of a compacted log.

Each step closes a segment in all partitions and waits until the running replicas have compacted it,
so that a replica makes at least one round in each step.
"""

import json
import time

import pytest
from confluent_kafka import Consumer, ElectionType, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.segments import batches, checkpoint
from harness.transactions import transactional

TIMEOUT_S = 60
ROUNDS_AWAY = 10
RETENTION_S = 0.3
OFFSETS = "__consumer_offsets"
TRANSACTIONS = "__transaction_state"
# How the records of each partition are written.
PLAIN, ZSTD, IDEMPOTENT, TRANSACTIONAL = range(4)
SETTINGS = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "log.cleaner.backoff.ms": "50",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.segment.delete.delay.ms": "100",
}
COMPACTED = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "2000",
    "delete.retention.ms": str(int(RETENTION_S * 1000)),
}


@pytest.fixture
def cleaning(new_cluster):
    """A cluster whose internal topics are led by node 1 or 2, and followed by the others."""
    cluster = new_cluster(**SETTINGS).start()
    create(cluster, OFFSETS, 1, [1, 2, 3])
    create(cluster, TRANSACTIONS, 1, [2, 1, 3], internal_segment_bytes="300")
    return cluster


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
            self.reader.commit(offsets=[place], asynchronous=False)

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

    def expected(self):
        return [{key: it for key, it in last.items() if it is not None} for last in self.last]


def step(writers, nodes):
    """Writes, and waits until the nodes have compacted that, and more of both internal topics."""
    internal = [f"{topic}-0" for topic in (OFFSETS, TRANSACTIONS)]
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
    reader = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "check.crcs": True,
        }
    )
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    found, ended, deadline = [{} for _ in range(4)], 0, time.monotonic() + TIMEOUT_S
    while ended < 4:
        assert time.monotonic() < deadline, f"no end of {4 - ended} partitions"
        for message in reader.consume(1000, timeout=0.5):
            if message.error():
                ended += 1
                continue
            key, value = message.key().decode(), message.value()
            found[message.partition()][key] = value and value.decode()
    reader.close()
    return [{key: it for key, it in last.items() if it is not None} for last in found]


def committed(writers):
    """Waits for the coordinator of the group, and returns what it knows, by partition."""
    bootstrap = writers.cluster.bootstrap
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": writers.group})
    places = [TopicPartition(writers.topic, partition) for partition in range(4)]

    def ask():
        try:
            return {it.partition: it.offset for it in reader.committed(places, TIMEOUT_S)}
        except KafkaException:
            return None

    found = writers.cluster.wait_until("the coordinator answers", ask)
    reader.close()
    return found


def sequences(run, topic, node):
    """Returns (producer id, epoch): last sequence of all producers that a replica remembers."""
    asked = f"--topic {topic} --partition {IDEMPOTENT} --broker-id {node.id}"
    printed = run(f"kafka-transactions describe-producers {asked}").ok().lines[1:]
    rows = (line.split() for line in printed)
    return {(int(row[0]), int(row[1])): int(row[3]) for row in rows}


def lead(cluster, run, topics, replicas):
    """Makes the first of these replicas the leader of all partitions."""
    plan = cluster.dir / "plan.json"
    moves = [
        {"topic": topic, "partition": index, "replicas": replicas}
        for topic in topics
        for index in cluster.metadata([topic]).topics[topic]
    ]
    plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    run(f"kafka-reassign-partitions --reassignment-json-file {plan} --execute").ok()
    cluster.wait_until_in_sync()
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.elect_leaders(ElectionType.PREFERRED).result(TIMEOUT_S)
    for move in moves:
        place = move["topic"], move["partition"]
        cluster.wait_until(
            f"{replicas[0]} leads {place}",
            lambda place=place: cluster.partition(*place).leader == replicas[0],
        )


def records(node, topic, partition, without):
    """Returns (offset, value) of the last record of each key in the files of a replica."""
    found = {}
    for batch in batches(log_of(node, topic, partition)):
        if not batch.is_control:
            found.update((it.key.decode(), (it.offset, it.value)) for it in batch.records)
    return {key: it for key, it in found.items() if it[1] is not None and key not in without}


def log_of(node, topic, partition):
    logs = sorted((node.data / f"{topic}-{partition}").glob("*.log"))
    return b"".join(log.read_bytes() for log in logs)


def test_a_follower_returns_after_many_rounds(cleaning, tools):
    """A follower that was away becomes the leader of everything.

    One key comes back with it: the key was deleted in its absence, and its tombstone was removed
    after `delete.retention.ms`. Apache Kafka cannot prevent that either.
    """
    run = tools(cleaning)
    create(cleaning, "away", 4, [1, 2, 3])
    writers = Writers(cleaning, "away")
    everyone, others, away = cleaning.running(), [cleaning[1], cleaning[2]], cleaning[3]
    for _ in range(3):
        step(writers, everyone)
    writers.write(writers.quiet, IDEMPOTENT, [("hot-0", "quiet")])
    step(writers, everyone)
    comes_back = {f"brief-{writers.step - 1}": f"{writers.step - 1}"}
    cleaning.wait_until_in_sync()
    away.kill()
    for _ in range(ROUNDS_AWAY):
        step(writers, others)
    assert read(cleaning, "away") == writers.expected()
    known = sequences(run, "away", cleaning[1])
    assert len(known) == 2, known

    cleaning.start(3)
    cleaning.wait_until_in_sync()
    assert sequences(run, "away", away) == known
    writers.transactional.begin_transaction()
    writers.write(writers.transactional, TRANSACTIONAL, [("open", "during the election")])
    lead(cleaning, run, ["away", OFFSETS, TRANSACTIONS], [3, 1, 2])
    assert committed(writers) == writers.committed
    writers.transactional.commit_transaction(TIMEOUT_S)
    assert read(cleaning, "away") == [last | comes_back for last in writers.expected()]

    writers.write(writers.quiet, IDEMPOTENT, [("quiet", "again")])
    step(writers, everyone)
    assert read(cleaning, "away") == [last | comes_back for last in writers.expected()]
    assert committed(writers) == writers.committed
    now = sequences(run, "away", away)
    assert now.keys() == known.keys(), "no producer needed another epoch"
    assert all(now[producer] > known[producer] for producer in known), (known, now)
    for partition in range(4):
        first, *more = (records(node, "away", partition, without=comes_back) for node in everyone)
        assert all(it == first for it in more), f"offsets of partition {partition} differ"


def test_a_new_replica_copies_a_compacted_log(cleaning, tools):
    """Byte by byte: with batches that have lost their records, and with delete horizons."""
    run = tools(cleaning)
    create(cleaning, "copied", 4, [1, 2])
    writers = Writers(cleaning, "copied")
    for _ in range(3):
        writers.write(writers.quiet, IDEMPOTENT, [("hot-0", "quiet")])
        step(writers, [cleaning[1], cleaning[2]])
    # No log is compacted any more, so that the copy stays as it is.
    run("kafka-configs --alter --entity-type topics --entity-name copied"
        " --add-config min.cleanable.dirty.ratio=1").ok()  # fmt: skip
    known = sequences(run, "copied", cleaning[1])
    lead(cleaning, run, ["copied"], [3, 1, 2])
    for partition in range(4):
        original, copy = (log_of(cleaning[node], "copied", partition) for node in (1, 3))
        assert original == copy
    logs = (log_of(cleaning[3], "copied", partition) for partition in range(4))
    found = [batch for log in logs for batch in batches(log)]
    assert {batch.is_control for batch in found if batch.has_horizon} == {False, True}
    assert any(batch.count == 0 and not batch.is_control for batch in found)
    assert sequences(run, "copied", cleaning[3]) == known
    assert read(cleaning, "copied") == writers.expected()
