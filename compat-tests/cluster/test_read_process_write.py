"""Read-process-write in transactions while nodes and workers die: nothing is lost or doubled.

Workers with the Java client, librdkafka and franz-go read a source topic and write to a sink topic
(harness/workers.py). A consumer with read_committed reads along. In the end
harness/exactly_once.py compares what the workers did with what the topics have.
"""

import os
import random
import struct
import threading
import time
from collections import Counter

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from differential import records
from faults import CUTS, ON_PROCESSES, Faults
from harness.exactly_once import ABORTED, COMMITTED, Data, History, Marker, check
from harness.loads import LibrdkafkaLoad
from harness.network import Network, is_possible
from harness.programs import CLOSING_LINES
from harness.transactions import fetch
from harness.worker import SHORT_TIMEOUTS
from harness.workers import Workers

SECONDS = float(os.environ.get("CLUSTER_SECONDS", "600"))
SEED = int(os.environ.get("CLUSTER_SEED", str(time.time_ns() % 1_000_000)))
PARTITIONS, GROUP, SOURCE, SINK = 4, "workers", "source", "sink"
SETTLE_S = 120
_CONTROL = 0x20


class Reader:
    """A consumer with read_committed that reads the sink from its start, beside the workers."""

    def __init__(self, bootstrap):
        config = {"group.id": "reader", "enable.auto.commit": False, "check.crcs": True}
        config |= {"isolation.level": "read_committed", "enable.partition.eof": True}
        self._consumer = Consumer({"bootstrap.servers": bootstrap, **SHORT_TIMEOUTS, **config})
        self._consumer.assign([TopicPartition(SINK, it, 0) for it in range(PARTITIONS)])
        self.seen = {partition: [] for partition in range(PARTITIONS)}
        self._at_end, self._is_ended = set(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._is_ended:
            for message in self._consumer.consume(500, timeout=0.1):
                partition = message.partition()
                if message.error() is None:
                    self._at_end.discard(partition)
                    value = message.value().decode()
                    self.seen[partition].append((message.offset(), value))
                elif message.error().name() == "_PARTITION_EOF":
                    self._at_end.add(partition)
        self._consumer.close()

    def end(self):
        self._is_ended = True
        self._thread.join(SETTLE_S)
        return self.seen

    def read_to_end(self):
        """Waits for the end of all partitions: for a reader that starts after all writes."""
        deadline = time.monotonic() + SETTLE_S
        while len(self._at_end) < PARTITIONS:
            assert time.monotonic() < deadline, f"at the end: {self._at_end}"
            time.sleep(0.05)
        return self.end()


class ReadProcessWrite:
    """The workers, the source that feeds them, and a reader."""

    def __init__(self, cluster):
        self.cluster = cluster
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        topics = [NewTopic(name, PARTITIONS, 3) for name in (SOURCE, SINK)]
        for made in admin.create_topics(topics, operation_timeout=30).values():
            made.result(60)
        self._source = LibrdkafkaLoad(
            cluster.bootstrap, SOURCE, PARTITIONS, pause_s=0.08, **SHORT_TIMEOUTS
        )
        self.workers = Workers(cluster.dir, cluster.bootstrap, GROUP, SOURCE, SINK, PARTITIONS)
        for name in self.workers.names:
            self.workers.start(name)
        self._reader = Reader(cluster.bootstrap)
        self.wait_for_progress()

    def wait_for_progress(self, transactions=5):
        """Waits until each worker has committed some more transactions."""
        before = self.workers.committed()

        def reached():
            now = self.workers.committed()
            return all(now[name] >= before[name] + transactions for name in before)

        self._wait_until("each worker commits", reached)

    def _wait_until(self, what, holds):
        def holds_with_workers():
            self.workers.assert_running()
            return holds()

        try:
            self.cluster.wait_until(what, holds_with_workers, SETTLE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.workers.report()}") from None

    def offsets(self):
        """Returns the committed offsets of the workers' group."""
        config = {"bootstrap.servers": self.cluster.bootstrap, "group.id": GROUP}
        reader = Consumer({**config, **SHORT_TIMEOUTS})
        try:
            asked = [TopicPartition(SOURCE, it) for it in range(PARTITIONS)]
            return {it.partition: max(it.offset, 0) for it in reader.committed(asked, 30)}
        finally:
            reader.close()

    def end(self):
        """Lets the workers process the rest of the source, and checks everything."""
        self._source.end()
        sent = self._source.told()[1]
        ends = {it: len(range(it, sent, PARTITIONS)) for it in range(PARTITIONS)}
        self._wait_until("the workers are done", lambda: self.offsets() == ends)
        for name in self.workers.names:
            self.workers.stop(name)
        self.cluster.wait_until_in_sync()
        whole = Reader(self.cluster.bootstrap).read_to_end()
        reads = [whole, self._reader.end()]
        journals = self.workers.journals()
        transactions = {}
        for journal in journals:
            transactions |= journal.transactions
        outcomes = {it.outcome for it in transactions.values()}
        assert {COMMITTED, ABORTED} <= outcomes, outcomes
        logs = {partition: list(self._log(partition)) for partition in range(PARTITIONS)}
        problems = check(History(transactions, logs, reads, self.offsets()))
        assert not problems, "\n".join(map(str, problems[:20]))
        return self._summary(journals, sum(len(read) for read in whole.values()))

    def _summary(self, journals, records):
        assignments = sum(journal.assignments for journal in journals)
        errors = sum(len(journal.errors) for journal in journals)
        return (
            f"{self.workers.committed()} transactions, {records} records, "
            f"{assignments} assignments, {errors} errors"
        )

    def _log(self, partition):
        """Yields the records and markers of a sink partition, from its leader."""
        leader = self.cluster[self.cluster.leader(SINK, partition)]
        offset = 0
        while True:
            fetched = fetch(leader, SINK, offset, isolation=0, partition=partition)
            assert fetched.error == 0, fetched
            if offset >= fetched.high_watermark:
                return
            for at, producer, attributes, key, value in records.entries(fetched.records):
                if at < offset:
                    continue
                offset = at + 1
                if attributes & _CONTROL:
                    yield Marker(at, producer, struct.unpack(">hh", key)[1] == 1)
                else:
                    yield Data(at, producer, value.decode())

    def kill(self):
        for name in self.workers.names:
            self.workers.kill(name)
        self._source.kill()


@pytest.fixture
def at_work(new_cluster):
    """Starts the workers on a cluster of three nodes, with links to cut if that is possible."""
    network = Network([1, 2, 3]) if is_possible() else None
    cluster = new_cluster(network=network, transaction_state_log_num_partitions="6")
    cluster.start()
    work = ReadProcessWrite(cluster)
    yield work
    work.kill()


def test_read_process_write(at_work):
    """Nodes are killed, paused and cut off, workers are killed and stopped, and both at once."""
    cluster, workers = at_work.cluster, at_work.workers
    cluster.kill(1)
    at_work.wait_for_progress()
    cluster.start(1)
    cluster.wait_until_in_sync()
    workers.replace("librdkafka")
    cluster[2].pause()
    time.sleep(3)
    cluster[2].resume()
    at_work.wait_for_progress()
    cluster.wait_until_in_sync()
    workers.restart("java")
    if cluster.network:
        cluster.network.cut(1, 2)
        cluster.network.cut(1, 3)
        time.sleep(3)
        cluster.network.heal()
    at_work.wait_for_progress()
    cluster.wait_until_in_sync()
    workers.kill("franz-go")
    cluster.kill(3)
    workers.start("franz-go")
    at_work.wait_for_progress()
    cluster.start(3)
    CLOSING_LINES.append(f"read-process-write: {at_work.end()}")


@pytest.mark.long
def test_read_process_write_under_faults(at_work):
    """Random faults of nodes and workers for `CLUSTER_SECONDS`, sometimes both at once."""
    cluster, workers, rng = at_work.cluster, at_work.workers, random.Random(SEED)
    print(f"CLUSTER_SEED={SEED}")
    faults, happened = Faults(cluster, rng), Counter()
    names = ON_PROCESSES + (CUTS if cluster.network else [])
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        worker = rng.choice(workers.names)
        of_worker = rng.choice(["kill", "stop", None])
        if of_worker:
            getattr(workers, of_worker)(worker)
        if not of_worker or rng.random() < 0.5:
            of_node = rng.choice(names)
            getattr(faults, of_node)(rng.choice(sorted(cluster.nodes)))
            happened[of_node] += 1
        if of_worker:
            workers.start(worker)
            happened[f"{of_worker} {worker}"] += 1
        cluster.wait_until_registered()
        cluster.wait_until_in_sync()
        at_work.wait_for_progress(2)
        time.sleep(rng.uniform(0, 2))
    CLOSING_LINES.append(f"seed {SEED}, {dict(happened)}, read-process-write: {at_work.end()}")
