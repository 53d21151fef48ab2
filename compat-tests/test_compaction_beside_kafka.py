"""The same directories compacted by Apache Kafka and by Sordini: they must be equal afterwards.

Each round begins with one directory. Both brokers compact a copy of it. Then the other broker serves
one of the results and writes more into it, and the next round begins. Delete horizons are all in the
past in the next round. Their values depend on the clock, and are not compared.
"""

import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import KAFKA_KIND, SORDINI_KIND, Broker
from harness.compacted import (
    CODECS,
    FATES,
    changed_horizons,
    compacted,
    differences,
    fates,
    logs,
    of_segment,
)
from harness.segments import batches, checkpoint
from harness.topics import read_to_end, set_configs
from harness.transactions import transactional

TIMEOUT_S = 60
SETTINGS = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "log.cleaner.backoff.ms": "100",
    "log.cleaner.delete.retention.ms": "500",
    # Room for 39,321 keys.
    "log.cleaner.dedupe.buffer.size": str((1 << 20) + 1),
    # Smaller than some batches: the buffer must grow.
    "log.cleaner.io.buffer.size": "3000",
    "log.segment.delete.delay.ms": "100",
    # Records are older than a day, but their producers must be remembered.
    "producer.id.expiration.ms": str(10 * 86_400_000),
}
NEVER = {"log.cleaner.min.cleanable.ratio": "1"}
ALWAYS = {"log.cleaner.min.cleanable.ratio": "0"}
SMALL = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "8000",
    "index.interval.bytes": "300",
}
TOPICS = {
    **{f"codec-{codec}": {} for codec in CODECS},
    "keyless": {"cleanup.policy": "delete"},
    # Transactions of a Java producer. Each has another epoch.
    "series": {"cleanup.policy": "delete"},
    # More keys than the buffer can hold: Each round ends where it is full.
    "many": {"internal.segment.bytes": "200000"},
    # The log start is within a segment.
    "trimmed": {"cleanup.policy": "delete"},
    # Some records are too young to be compacted.
    "young": {"min.compaction.lag.ms": "3600000"},
    "stamped": {"message.timestamp.type": "LogAppendTime"},
    "idempotent": {},
    "transactions": {},
    "transactions-lz4": {},
    "held": {},
    # Segments roll because their indexes are full, and the indexes bound a group of segments.
    "indexed": {"segment.index.bytes": "100", "internal.segment.bytes": "1000000"},
}
INTERNAL = ["__consumer_offsets", "__transaction_state"]
FAILED = ["Unexpected exception thrown when cleaning log", "log cannot be compacted"]
ROUND = {
    KAFKA_KIND: re.compile(
        r"cleaned log (\S+) \(dirty section = \[(\d+), (\d+)\]\)"
        r"(?:\n\t.*)*?"
        r"\n\tStart size: .* \(([\d,]+) messages\)\n\tEnd size: .* \(([\d,]+) messages\)"
    ),
    SORDINI_KIND: re.compile(
        r"log compacted partition=(\S+) .* first_dirty=(\d+) end=(\d+)"
        r".* messages_read=(\d+) messages_kept=(\d+)"
    ),
}
HEADERS = [
    None,
    [("a", b"1"), ("a", b"2"), ("b", b"")],
    [("", b"name is empty"), ("none", None), ("a", b"x" * 200)],
]


class History:
    """Writes into the topics of a broker. Each part has other values, and some other keys."""

    def __init__(self, broker, tool_host, part):
        self.broker, self.tool_host, self.part = broker, tool_host, part
        # More than 2^26 ms before any delete horizon, so that all deltas take as many bytes.
        self.timestamp = int(time.time() * 1000) - 100_000_000

    def write(self):
        for codec in CODECS:
            self._keyed(f"codec-{codec}", **{"compression.type": codec})
        self._keyed("stamped")
        self._keyed("stamped", **{"compression.type": "zstd"})
        self._keyless()
        self._series()
        self._many()
        self._trimmed()
        self._young()
        self._idempotent()
        # Apache Kafka cannot compact a log if the merged entries of its clean segments just fill an
        # index ("Attempt to append to a full time index"), so this one has no third round.
        if self.part < 2:
            self._keyed("indexed", batch=1)
        self._transactions("transactions")
        self._transactions("transactions-lz4", **{"compression.type": "lz4"})
        self._keyed("held")
        self._commits()

    def _producer(self, **config):
        return Producer({"bootstrap.servers": self.broker.bootstrap, "linger.ms": 1000, **config})

    def _append(self, producer, topic, records):
        """Appends one batch of (key, value) pairs."""
        errors = []
        for key, value in records:
            self.timestamp += 7
            producer.produce(
                topic,
                key=key,
                value=value,
                partition=0,
                timestamp=self.timestamp,
                headers=HEADERS[self.timestamp % len(HEADERS)],
                on_delivery=lambda error, _: errors.append(error),
            )
        assert producer.flush(TIMEOUT_S) == 0
        assert len(errors) == len(records) and not any(errors), errors

    def _roll(self, topic):
        """Closes the segment that has the last records: two of these do not fit a segment."""
        for _ in range(2):
            self._append(self._producer(), topic, [(b"roll", b"r" * 5000)])

    def _keyed(self, topic, batch=9, **config):
        """Keys of all fates: replaced soon or rounds later, deleted, deleted and set again, kept."""
        name = f"{self.part}-{config.get('compression.type', 'none')}".encode()
        producer = self._producer(**config)
        rows = []
        for n in range(12 * batch if batch > 1 else 120):
            kind = n % 9
            key = {
                0: b"hot",
                1: b"warm-%d" % (n % 4),
                2: b"once-%s-%d" % (name, n),
                3: b"deleted-%d" % (n % 6),
                4: b"deleted-%s-%d" % (name, n),
                5: b"",
                6: b"again-%d" % (n % 5),
                7: b"empty",
                8: b"rare" if n < 20 and self.part == 0 else b"warm-9",
            }[kind]
            is_tombstone = kind in (3, 4) or kind == 6 and n % 2
            value = None if is_tombstone else b"" if kind == 7 else b"%s-%d-" % (name, n) + b"v" * 30
            rows.append((key, value))
        for first in range(0, len(rows), batch):
            self._append(producer, topic, rows[first : first + batch])
        # Everything in this batch stays.
        self._append(producer, topic, [(b"last-%s-%d" % (name, n), b"v") for n in range(batch)])
        # Nothing in these stays but tombstones.
        self._append(producer, topic, [(b"hot", b"v"), (b"warm-0", None), (b"hot", b"w")])
        self._append(producer, topic, [(b"hot", b"x")])
        # Of this, a record in the middle stays.
        middle = [b"hot", b"middle-%s" % name, b"hot"]
        self._append(producer, topic, [(key, b"v" * 50) for key in middle])
        # A batch that is larger than the buffer.
        self._append(producer, topic, [(b"large", b"l" * 6000), (b"hot", b"y")])
        self._roll(topic)

    def _keyless(self):
        """Records without keys, until the policy is compact. The first round ends with one."""
        producer = self._producer()
        if self.part < 2:
            for n in range(10):
                self._append(producer, "keyless", [(None, b"%d" % n), (b"k%d" % (n % 3), b"v" * 500)])
                self._append(producer, "keyless", [(None, b"alone")])
            self._append(producer, "keyless", [(None, b"v" * 5000)])
        if self.part == 1:
            set_configs(self.broker, "keyless", {"cleanup.policy": "compact"})
        self._append(producer, "keyless", [(b"k0", b"v" * 5000)])
        if self.part > 1:
            self._roll("keyless")

    def _series(self):
        if self.part < 2:
            for name, fates in (("one", "cacaac"), ("two", "cca")):
                args = [self.broker.bootstrap, "series", f"series-{name}", fates]
                self.tool_host.run("transaction-series", args).ok()
        if self.part == 1:
            set_configs(self.broker, "series", {"cleanup.policy": "compact"})
        self._append(self._producer(), "series", [(b"key", b"v")])
        if self.part > 0:
            self._roll("series")

    def _many(self):
        if self.part == 1:
            producer = self._producer()
            for first in range(0, 50_000, 500):
                rows = [(b"%d" % (n if n % 5 else n // 2), b"v") for n in range(first, first + 500)]
                self._append(producer, "many", rows)
        self._append(self._producer(), "many", [(b"many", b"v" * 150_000)])

    def _trimmed(self):
        self._keyed("trimmed")
        if self.part < 2:
            admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
            place = TopicPartition("trimmed", 0, 30 + 5 * self.part)
            admin.delete_records([place])[place].result(TIMEOUT_S)
        if self.part == 1:
            set_configs(self.broker, "trimmed", {"cleanup.policy": "compact"})

    def _young(self):
        self._keyed("young")
        if self.part == 1:
            now = int(time.time() * 1000)
            producer = self._producer()
            producer.produce("young", key=b"hot", value=b"young", partition=0, timestamp=now)
            assert producer.flush(TIMEOUT_S) == 0
            self._roll("young")

    def _idempotent(self):
        """Producers whose last batches are replaced by others: their sequences must stay."""
        producers = [self._producer(**{"enable.idempotence": True}) for _ in range(3)]
        for n in range(12):
            for at, producer in enumerate(producers):
                if at != 2 or n < 4:
                    pairs = [(b"i%d" % ((n + at + m) % 5), b"v" * 100) for m in range(at + 1)]
                    self._append(producer, "idempotent", pairs)
        self._append(producers[0], "idempotent", [(b"i%d" % n, None) for n in range(4)])
        self._append(self._producer(), "idempotent", [(b"i%d" % n, b"w") for n in range(3)])
        self._roll("idempotent")

    def _transactions(self, topic, **config):
        """Transactions that overlap; every third is aborted. Most of their records are replaced."""
        bootstrap = self.broker.bootstrap
        names = ["one", "two", "three"]
        made = [transactional(bootstrap, f"{topic}-{name}", **config) for name in names]
        # This one writes in the first part only.
        gone = [transactional(bootstrap, f"{topic}-gone", **config)] if self.part == 0 else []
        plain = self._producer(**config)
        for n in range(6):
            for producer in made + gone:
                producer.begin_transaction()
            for at, producer in enumerate(made + gone):
                pairs = [(b"t%d" % ((n + m) % 4), b"%d-%d-" % (at, n) + b"v" * 80) for m in range(3)]
                self._append(producer, topic, pairs)
                if at == 2:
                    self._append(producer, topic, [(b"t%d" % (n % 4), None), (b"aborted", b"v")])
            self._append(plain, topic, [(b"t%d" % (n % 4), b"plain" * 20), (b"plain", None)])
            for at, producer in enumerate(made + gone):
                if (at + n) % 3 == 0:
                    producer.abort_transaction(TIMEOUT_S)
                    continue
                reader = Consumer({"bootstrap.servers": bootstrap, "group.id": f"group-{at}"})
                position = TopicPartition(topic, 0, n, metadata="m" * 200)
                metadata = reader.consumer_group_metadata()
                producer.send_offsets_to_transaction([position], metadata, TIMEOUT_S)
                producer.commit_transaction(TIMEOUT_S)
                reader.close()
        for producer in gone:
            # The next producer of this name aborts the transaction. The marker has a new epoch.
            producer.begin_transaction()
            self._append(producer, topic, [(b"t0", b"fenced")])
            transactional(bootstrap, f"{topic}-gone", **config)
        # Transactions of which nothing stays, and a producer that ends with an aborted one.
        made[0].begin_transaction()
        self._append(made[0], topic, [(b"t%d" % n, b"replaced" * 10) for n in range(4)])
        made[0].commit_transaction(TIMEOUT_S)
        made[1].begin_transaction()
        self._append(made[1], topic, [(b"t0", b"aborted" * 10)])
        made[1].abort_transaction(TIMEOUT_S)
        self._append(plain, topic, [(b"t%d" % n, b"last") for n in range(3)])
        self._roll(topic)

    def _commits(self):
        reader = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": "committing"})
        for n in range(12):
            position = TopicPartition(f"codec-{CODECS[n % 3]}", 0, n, metadata="m" * 1000)
            reader.commit(offsets=[position], asynchronous=False)
        reader.close()

    def hold(self):
        """Leaves a transaction open in "held". Returns its first offset and its producer."""
        name = {"transaction.timeout.ms": 900_000}
        producer = transactional(self.broker.bootstrap, "held-open", **name)
        producer.begin_transaction()
        reader = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": "reader"})
        _, first = reader.get_watermark_offsets(TopicPartition("held", 0), TIMEOUT_S)
        reader.close()
        self._append(producer, "held", [(b"hot", b"open"), (b"rare", b"open")])
        return first, producer


def create_topics(broker):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    new = [NewTopic(name, 1, 1, config=SMALL | changed) for name, changed in TOPICS.items()]
    for created in admin.create_topics(new).values():
        created.result(TIMEOUT_S)


def read(broker, isolation):
    """Returns all records by topic, but for the one large topic."""
    found = {topic: [] for topic in TOPICS if topic != "many"}
    for it in read_to_end(broker, [(topic, 0) for topic in found], isolation):
        row = (it.offset(), it.timestamp(), it.key(), it.value(), it.headers())
        found[it.topic()].append(row)
    return found


def reads(broker):
    return {isolation: read(broker, isolation) for isolation in ("read_committed", "read_uncommitted")}


def ends_of_rounds(data, last_stable):
    """Returns the end of the next round, by partition directory."""
    ends = {}
    for name in [f"{topic}-0" for topic in [*TOPICS, *INTERNAL]]:
        bases = list(logs(data / name))
        limit = min(bases[-1], last_stable.get(name, bases[-1]))
        if name == "young-0":
            hour_ago = (time.time() - 3600) * 1000
            limit = min(
                (base for base, log in logs(data / name).items()
                 if any(it.max_timestamp > hour_ago for it in batches(log.read_bytes()))),
                default=limit,
            )  # fmt: skip
        ends[name] = max(base for base in bases if base <= limit)
    return ends


def wait_for_round(broker, ends):
    """Waits until the broker has compacted each partition up to its end."""
    deadline = time.monotonic() + TIMEOUT_S
    while (reached := checkpoint(broker.data / "cleaner-offset-checkpoint")) != ends:
        log = (broker.dir / "broker.log").read_text()
        failed = [text for text in FAILED if text in log]
        message = f"{broker.kind} has compacted to {reached}, not to {ends} {failed}"
        assert time.monotonic() < deadline and not failed, f"{message}\n{broker.log_tail()}"
        time.sleep(0.1)


def rounds_of(broker):
    """Returns (partition, first dirty offset, end, records read, records kept) of each round."""
    text = (broker.dir / "broker.log").read_text()
    found = ROUND[broker.kind].findall(text)
    return sorted((name, *(int(it.replace(",", "")) for it in numbers)) for name, *numbers in found)


class Rounds:
    """Two brokers that compact copies of one directory."""

    def __init__(self, tmp_path, tool_host):
        self.path, self.tool_host, self.brokers, self.round = tmp_path, tool_host, [], 0
        self.seen = set()

    def broker(self, kind, name, source=None, **settings):
        broker = Broker(kind, self.path / name, **SETTINGS)
        broker.settings |= settings
        if source is not None:
            assert source.process is None
            shutil.copytree(source.data, broker.data)
        self.brokers.append(broker)
        return broker

    def write(self, broker):
        """Writes a part of the history, and stops the broker."""
        if self.round == 0:
            create_topics(broker)
            History(broker, self.tool_host, 0).write()
            for topic in INTERNAL:
                set_configs(broker, topic, {"internal.segment.bytes": "8000"})
            first, self.open = History(broker, self.tool_host, 0).hold()
            self.last_stable = {"held-0": first}
        self.round += 1
        if self.round == 3:
            # Aborts the transaction that was open during two rounds.
            transactional(broker.bootstrap, "held-open")
            self.last_stable = {}
        History(broker, self.tool_host, self.round).write()
        assert broker.stop() in (0, 143)

    def compact(self, source):
        """Lets both brokers compact copies of a directory, and compares the results."""
        ends = ends_of_rounds(source.data, self.last_stable)
        pair = [self.broker(kind, f"{self.round}-{kind}", source, **ALWAYS)
                for kind in (KAFKA_KIND, SORDINI_KIND)]  # fmt: skip
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda broker: self._compact(broker, ends), pair))
        kafka, sordini = pair
        self.seen |= {fate for log in compacted(kafka.data, ends) for fate in fates(log)}
        done = [rounds_of(broker) for broker in pair]
        assert done[0] == done[1], f"rounds are {done[0]} and {done[1]}"
        assert len(done[0]) >= 10, done[0]
        report = differences(kafka.data, sordini.data, ends)
        report += changed_horizons(source.data, kafka.data, sordini.data, ends)
        assert not report, f"round {self.round}:\n" + "\n".join(report)
        assert found[0] == found[1], f"consumers read other records in round {self.round}"
        return kafka, sordini, found[0]

    def _compact(self, broker, ends):
        broker.start()
        wait_for_round(broker, ends)
        found = reads(broker)
        assert broker.stop() in (0, 143)
        assert checkpoint(broker.data / "cleaner-offset-checkpoint") == ends
        return found


@pytest.fixture
def rounds(kind, tmp_path, tool_host, monkeypatch):
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    # The brokers live for seconds only.
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    rounds = Rounds(tmp_path, tool_host)
    yield rounds
    for broker in rounds.brokers:
        broker.kill()


def find_changed_bytes(kafka, sordini):
    """Checks that the comparison finds single bytes that differ in the log or an index."""
    for topic in ("codec-none", "codec-gzip", "transactions", "transactions-lz4"):
        log = logs(sordini.data / f"{topic}-0")[0]
        for path in (log, log.with_suffix(".index"), log.with_suffix(".txnindex")):
            data = path.read_bytes() if path.exists() else b""
            times = (path.stat().st_atime_ns, path.stat().st_mtime_ns) if data else (0, 0)
            for at in range(0, len(data), 1 + len(data) // 50):
                path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
                os.utime(path, ns=times)
                try:
                    found = list(of_segment(kafka.data / log.relative_to(sordini.data), log))
                except Exception as error:  # It cannot even be parsed.
                    found = [error]
                assert found, f"a changed byte at {at} of {path} is not found"
            path.write_bytes(data)
            os.utime(path, ns=times)


@pytest.mark.oracle
def test_rounds_have_the_same_results(rounds):
    writer = rounds.broker(SORDINI_KIND, "written", **NEVER).start()
    rounds.write(writer)
    kafka, sordini, records = rounds.compact(writer)
    find_changed_bytes(kafka, sordini)

    writer = rounds.broker(KAFKA_KIND, "kafka-on-ours", sordini, **NEVER).start()
    assert reads(writer) == records, "Apache Kafka reads the directory of Sordini"
    rounds.write(writer)
    kafka, sordini, records = rounds.compact(writer)

    writer = rounds.broker(SORDINI_KIND, "sordini-on-theirs", kafka, **NEVER).start()
    assert reads(writer) == records, "Sordini reads the directory of Apache Kafka"
    rounds.write(writer)
    kafka, sordini, records = rounds.compact(writer)

    # Markers that have lost their record in the third round, because they are the last of a producer.
    writer = rounds.broker(SORDINI_KIND, "sordini-again", sordini, **NEVER).start()
    rounds.write(writer)
    rounds.compact(writer)
    assert FATES <= rounds.seen, f"never seen: {FATES - rounds.seen}; seen: {rounds.seen - FATES}"
