"""Read-process-write in transactions while nodes and workers die: nothing is lost or doubled.

Two workers read a source topic and write to a sink topic (harness/worker.py). A consumer with
read_committed reads along. In the end harness/exactly_once.py compares what the workers did with
what the topics have.
"""

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from differential import records
from harness.exactly_once import ABORTED, COMMITTED, Data, History, Marker, check
from harness.loads import LibrdkafkaLoad
from harness.paths import TESTS
from harness.programs import CLOSING_LINES
from harness.transactions import fetch
from harness.worker import SHORT_TIMEOUTS, errors_of, transactions_of

SECONDS = float(os.environ.get("CLUSTER_SECONDS", "600"))
SEED = int(os.environ.get("CLUSTER_SEED", str(time.time_ns() % 1_000_000)))
PARTITIONS, GROUP, SOURCE, SINK = 4, "workers", "source", "sink"
WORKERS = ("worker-1", "worker-2")
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
        self._admin, self._journals, self.workers = admin, [], {}
        self._source = LibrdkafkaLoad(
            cluster.bootstrap, SOURCE, PARTITIONS, pause_s=0.08, **SHORT_TIMEOUTS
        )
        for name in WORKERS:
            self.start_worker(name)
        self._reader = Reader(cluster.bootstrap)
        self.wait_for_progress()

    def start_worker(self, name):
        journal = self.cluster.dir / f"{name}-{len(self._journals)}.journal"
        journal.touch()
        self._journals.append(journal)
        args = [self.cluster.bootstrap, name, GROUP, SOURCE, SINK, str(PARTITIONS), str(journal)]
        command = [sys.executable, "-m", "harness.worker", *args]
        self.workers[name] = subprocess.Popen(command, cwd=TESTS)

    def replace_stuck_workers(self):
        for name, worker in list(self.workers.items()):
            if worker.poll() == -signal.SIGALRM:
                self.start_worker(name)

    def kill_worker(self, name):
        self.workers[name].kill()
        self.workers[name].wait()

    def replace_worker(self, name):
        self.kill_worker(name)
        self.start_worker(name)

    def committed_count(self):
        transactions = transactions_of(self._journals).values()
        return sum(it.outcome == COMMITTED for it in transactions)

    def wait_for_progress(self, transactions=10):
        """Waits until the workers have committed some more transactions."""
        goal = self.committed_count() + transactions

        def reached():
            self.replace_stuck_workers()
            return self.committed_count() >= goal

        self.cluster.wait_until("the workers commit", reached, SETTLE_S)

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

        def done():
            self.replace_stuck_workers()
            return self.offsets() == ends

        self.cluster.wait_until("the workers are done", done, SETTLE_S)
        for worker in self.workers.values():
            worker.terminate()
            assert worker.wait(SETTLE_S) in (0, -signal.SIGALRM)
        self.cluster.wait_until_in_sync()
        whole = Reader(self.cluster.bootstrap).read_to_end()
        reads = [whole, self._reader.end()]
        transactions = transactions_of(self._journals)
        outcomes = {it.outcome for it in transactions.values()}
        assert {COMMITTED, ABORTED} <= outcomes, outcomes
        logs = {partition: list(self._log(partition)) for partition in range(PARTITIONS)}
        problems = check(History(transactions, logs, reads, self.offsets()))
        assert not problems, "\n".join(map(str, problems[:20]))
        written = sum(len(read) for read in whole.values())
        return f"{len(transactions)} transactions, {written} records, {len(self.errors())} errors"

    def errors(self):
        return errors_of(self._journals)

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
        for worker in self.workers.values():
            worker.kill()
            worker.wait()
        self._source.kill()


@pytest.fixture
def at_work(new_cluster):
    """Starts the workers on a cluster of three nodes."""
    cluster = new_cluster(transaction_state_log_num_partitions="6")
    cluster.start()
    work = ReadProcessWrite(cluster)
    yield work
    work.kill()


def test_read_process_write(at_work):
    """Nodes are killed and paused, workers are killed, and both at once."""
    cluster = at_work.cluster
    cluster.kill(1)
    at_work.wait_for_progress()
    cluster.start(1)
    cluster.wait_until_in_sync()
    at_work.replace_worker(WORKERS[0])
    cluster[2].pause()
    time.sleep(3)
    cluster[2].resume()
    at_work.wait_for_progress()
    cluster.wait_until_in_sync()
    at_work.kill_worker(WORKERS[1])
    cluster.kill(3)
    at_work.start_worker(WORKERS[1])
    at_work.wait_for_progress()
    cluster.start(3)
    CLOSING_LINES.append(f"read-process-write: {at_work.end()}")


@pytest.mark.long
def test_read_process_write_under_faults(at_work):
    """Random faults of nodes and workers for `CLUSTER_SECONDS`."""
    cluster, rng = at_work.cluster, random.Random(SEED)
    print(f"CLUSTER_SEED={SEED}")
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        victim = rng.choice(sorted(cluster.nodes))
        fault = rng.choice(["kill", "pause", "restart", "worker"])
        if fault == "worker":
            at_work.replace_worker(rng.choice(WORKERS))
        elif fault == "pause":
            cluster[victim].pause()
            time.sleep(rng.choice([0.5, 3, 14]))
            cluster[victim].resume()
        else:
            cluster[victim].kill() if fault == "kill" else cluster[victim].stop()
            time.sleep(rng.uniform(0, 3))
            cluster.start(victim)
        cluster.wait_until_in_sync()
        at_work.wait_for_progress(2)
        time.sleep(rng.uniform(0, 2))
    CLOSING_LINES.append(f"seed {SEED}, read-process-write: {at_work.end()}")
