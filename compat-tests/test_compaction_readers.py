"""Consumers that read a topic from the start, again and again, while its segments are replaced."""

import re
import socket
import struct
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from differential import schema
from harness.broker import SORDINI_KIND, Broker
from harness.topics import set_configs
from harness.transactions import transactional
from test_compaction import checkpoint, create, produce, wait_until
from test_metrics import Scrape

ROUNDS = 100
# Time for the Java readers to get through the topic.
DURATION_MIN_S = 5
DELETE_DELAY_S = 1
# Enough to close a segment or two.
TRANSACTIONS_PER_ROUND = 16
TIMEOUT_S = 60
ERRORS = "kafka_server_request_errors_total"
# A line for each round that has replaced segments.
ROUND = re.compile(r"log compacted partition=swapped-0 |cleaned log swapped-0 ")


@pytest.fixture
def cleaning(kind, tmp_path):
    """A broker whose cleaner hardly rests. It removes replaced files after a second."""
    broker = Broker(
        kind,
        tmp_path,
        log_cleaner_backoff_ms=5,
        log_cleaner_dedupe_buffer_size=8 << 20,
        log_segment_delete_delay_ms=1000 * DELETE_DELAY_S,
        transaction_state_log_num_partitions=1,
    ).start()
    yield broker
    broker.kill()


class Writer:
    """Appends records until enough rounds have run: some keys often, some seldom, some once. Every
    third transaction is aborted."""

    def __init__(self, broker, topic):
        self.broker, self.topic = broker, topic
        # Committed records: (key, value) by offset.
        self.history = {}
        self._producer = transactional(broker.bootstrap, "writer")
        self._count = 0

    def run(self, readers):
        """Goes on until each of the readers has got through the topic more than once."""
        begun = time.monotonic()
        transactions = 0

        def is_enough():
            is_late = time.monotonic() > begun + DURATION_MIN_S
            return is_late and all(len(it.passes) > 1 or it.failure for it in readers)

        while self.rounds() < ROUNDS or not is_enough():
            assert time.monotonic() < begun + 4 * TIMEOUT_S, f"only {self.rounds()} rounds"
            # A round should not have more to do when the disk is slow.
            if transactions < TRANSACTIONS_PER_ROUND * (1 + self.rounds()):
                transactions += 1
                self._write([self._next_key() for _ in range(10)], transactions % 3 != 0)
            else:
                time.sleep(0.01)

    def _next_key(self):
        self._count += 1
        n = self._count
        return f"once-{n}" if n % 150 == 0 else f"seldom-{n % 140}" if n % 7 == 0 else f"hot-{n % 9}"

    def _write(self, keys, commits):
        self._producer.begin_transaction()
        written = {}
        for at, key in enumerate(keys):
            self._append(written, key, f"{self._count}-{at}-{'v' * 100}")
        assert self._producer.flush(TIMEOUT_S) == 0
        assert len(written) == len(keys)
        if commits:
            self._producer.commit_transaction(TIMEOUT_S)
            self.history |= written
        else:
            self._producer.abort_transaction(TIMEOUT_S)

    def _append(self, written, key, value):
        def delivered(error, message):
            assert error is None, error
            written[message.offset()] = (key, value)

        self._producer.produce(self.topic, value, key, partition=0, on_delivery=delivered)

    def stop(self):
        self._write(["stop"], True)

    def rounds(self):
        return len(ROUND.findall((self.broker.dir / "broker.log").read_text()))


def last_of_each_key(records):
    return {key: (offset, value) for offset, (key, value) in sorted(records.items())}


class Pass:
    """What a consumer has read on its way from the start of the partition to its end."""

    def __init__(self, records, end):
        self.records, self.end = records, end

    def check(self, history, left, kind):
        """`history` has all committed records, `left` those that are there at the end."""
        offsets = [offset for offset, _, _ in self.records]
        assert all(a < b for a, b in zip(offsets, offsets[1:])), f"not in order: {offsets}"
        found = {offset: (key, value) for offset, key, value in self.records}
        assert all(history.get(offset) == found[offset] for offset in found)
        assert self.end > max(found, default=-1)
        # A record is missing only if the log had a later one of its key already.
        written = {offset: it for offset, it in history.items() if offset < self.end}
        expected = last_of_each_key(written)
        if kind != SORDINI_KIND:
            # Apache Kafka looks up the last stable offset first and the segments after that. If a
            # whole round fits in between, a response lacks records of keys that have later ones
            # after its end.
            late = {key for offset, (key, _) in history.items() if offset >= self.end}
            kept = last_of_each_key(found)
            expected = {key: it for key, it in expected.items() if key in kept or key not in late}
        assert last_of_each_key(found) == expected
        missing = {offset for offset in left if offset < self.end} - found.keys()
        assert not missing, f"these are still there, but were not read: {sorted(missing)}"

    @property
    def is_stopped(self):
        return any(key == "stop" for _, key, _ in self.records)


def read_once(consumer, topic, pause_s=0):
    """Reads from the start to the end of the partition, with a pause after the first record."""
    consumer.assign([TopicPartition(topic, 0, 0)])
    records = []
    while True:
        message = consumer.poll(TIMEOUT_S)
        assert message is not None, f"no answer after {len(records)} records"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            return Pass(records, message.offset())
        records.append((message.offset(), message.key().decode(), message.value().decode()))
        if pause_s and len(records) == 1:
            time.sleep(pause_s)


class Reader(threading.Thread):
    """A librdkafka consumer. It ends after a pass with the record of the key `stop`."""

    def __init__(self, broker, topic, fetch_bytes, pause_s=0):
        super().__init__(daemon=True)
        self.passes, self.failure = [], None
        self._topic, self._pause_s = topic, pause_s
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "check.crcs": True,
                "fetch.message.max.bytes": fetch_bytes,
                "fetch.wait.max.ms": 10,
                # Without a look ahead, fetches follow the reads of the test.
                "queued.min.messages": 1,
                "queued.max.messages.kbytes": 1,
                "fetch.queue.backoff.ms": 1,
            }
        )

    def run(self):
        try:
            while not (self.passes and self.passes[-1].is_stopped):
                self.passes.append(read_once(self._consumer, self._topic, self._pause_s))
        except Exception as error:
            self.failure = error
        self._consumer.close()


def passes_of(output):
    """Parses the output of tools/RepeatedReader.java."""
    passes, records = [], []
    for line in output.splitlines():
        first, *rest = line.split(" ")
        if first == "end":
            passes.append(Pass(records, int(rest[0])))
            records = []
        else:
            records.append((int(first), *rest))
    return passes


def test_readers_get_what_is_left_through_a_hundred_rounds(kind, cleaning, tool_host):
    create(
        cleaning,
        "swapped",
        internal_segment_bytes="8000",
        file_delete_delay_ms=str(1000 * DELETE_DELAY_S),
        # Markers of transactions go soon.
        delete_retention_ms="100",
    )
    writer = Writer(cleaning, "swapped")
    # Small fetches, so that a pass goes on through many rounds. With a pause, a reader continues in
    # segments whose files have been removed meanwhile.
    pause_s = 1.5 * DELETE_DELAY_S
    readers = [
        Reader(cleaning, "swapped", 2000),
        Reader(cleaning, "swapped", 4000, pause_s),
        Reader(cleaning, "swapped", 1 << 20),
    ]
    in_java = [
        tool_host.start("repeated-reader", [cleaning.bootstrap, "swapped", "2000", pause_ms])
        for pause_ms in ("0", str(int(1000 * pause_s)))
    ]
    for reader in readers:
        reader.start()
    writer.run(readers)
    writer.stop()
    for reader in readers:
        reader.join()
    assert [reader.failure for reader in readers] == [None] * len(readers)
    passes = [reader.passes for reader in readers]
    passes += [passes_of(it.wait().ok().stdout) for it in in_java]
    consumer = Reader(cleaning, "swapped", 1 << 20)
    consumer.run()
    left = {offset for offset, _, _ in consumer.passes[-1].records}
    assert len(left) < 0.5 * len(writer.history)
    for of_one_reader in passes:
        assert of_one_reader
        for it in of_one_reader:
            it.check(writer.history, left, kind)
    if kind == SORDINI_KIND:
        # Clients would repeat a fetch that failed.
        errors = [dict(labels) for name, labels in Scrape(cleaning).samples if name == ERRORS]
        assert [it for it in errors if it["api"] == "Fetch" and it["error"] != "NONE"] == []


def receive(connection, count):
    data = bytearray()
    while len(data) < count:
        more = connection.recv(min(count - len(data), 1 << 20))
        assert more, f"the connection is closed after {len(data)} of {count} bytes"
        data += more
    return bytes(data)


def fetch(topic, max_bytes):
    """Returns the frame of a Fetch (version 12) from the start of partition 0."""
    partition = {"partition": 0, "fetchOffset": 0, "partitionMaxBytes": max_bytes}
    body = {
        "maxWaitMs": 100,
        "minBytes": 1,
        "maxBytes": max_bytes,
        "sessionEpoch": -1,
        "topics": [{"topic": topic, "partitions": [partition]}],
    }
    head = struct.pack(">hhihb", 1, 12, 7, -1, 0)
    request = head + schema.encode_request("Fetch", 12, body)
    return struct.pack(">i", len(request)) + request


def test_slow_reader_gets_its_whole_response_of_a_replaced_segment(kind, cleaning):
    if kind != SORDINI_KIND:
        pytest.skip("Apache Kafka closes the connection when it removes the files")
    # More than the buffers of the sockets hold.
    size = 16 << 20
    config = {"internal_segment_bytes": str(size), "file_delete_delay_ms": "1000"}
    create(cleaning, "large", cleanup_policy="delete", **config)
    for part in range(20):
        produce(cleaning, "large", [(f"k{n}", f"{part}-{'v' * 50_000}") for n in range(20)])
    with socket.create_connection(cleaning.address, timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        connection.sendall(fetch("large", size))
        (length,) = struct.unpack(">i", receive(connection, 4))
        log = cleaning.data / "large-0" / f"{0:020}.log"
        written = log.read_bytes()
        set_configs(cleaning, "large", {"cleanup.policy": "compact"})
        wait_until(lambda: checkpoint(cleaning, "large"), "not compacted")
        wait_until(lambda: not any(log.parent.glob("*.deleted")), "replaced files are not removed")
        response = schema.decode_response("Fetch", 12, receive(connection, length)[5:])
    (partition,) = response["responses"][0]["partitions"]
    assert partition["errorCode"] == 0
    assert partition["records"] == written and len(written) > 0.9 * size
