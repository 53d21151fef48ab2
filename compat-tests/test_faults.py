"""Kill -9 in a loop under the load of stock clients.

The checker knows what each of them was told: what was acknowledged is at its offset, nothing is
there twice or out of order, and a group goes on from what it committed. `FAULT_SECONDS` makes the
loop of kills longer, `FAULT_SEED` repeats one.
"""

import os
import random
import subprocess
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.paths import CLASSPATH, JAVA
from harness.programs import CLOSING_LINES
from harness.tools import CLASSES

SECONDS = float(os.environ.get("FAULT_SECONDS", "18"))
SEED = int(os.environ.get("FAULT_SEED", str(time.time_ns() % 1_000_000)))
UP_S = (0.15, 1.2)
SETTLE_S = 90
PARTITIONS = {"by-console": 1, "by-java": 3, "by-librdkafka": 2, "by-librdkafka-lz4": 2}
# Segments roll within the loop, and one topic waits for the disk.
CONFIGS = {"segment.ms": "700", "index.interval.bytes": "500"}
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"


class Program:
    """A Java client as a process, its output collected as it comes."""

    def __init__(self, main, *args):
        self._process = subprocess.Popen(
            [*JAVA, QUIET, "-cp", CLASSPATH, main, *(str(arg) for arg in args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out, self.err = [], []
        streams = ((self._process.stdout, self.out), (self._process.stderr, self.err))
        self._readers = [
            threading.Thread(target=lambda s=s, to=to: to.extend(s), daemon=True)
            for s, to in streams
        ]
        for reader in self._readers:
            reader.start()

    def feed(self, text):
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end(self):
        """Closes its input and waits for the end of its own accord."""
        self._process.stdin.close()
        code = self._process.wait(SETTLE_S)
        for reader in self._readers:
            reader.join(10)
        assert code == 0, f"exit {code}: {''.join(self.err[-20:])}"

    def kill(self):
        self._process.kill()
        self._process.wait()


class JavaLoad:
    """tools/NumberedProducer.java: several requests in flight, each record's callback noted."""

    topic = "by-java"

    def __init__(self, bootstrap):
        main = "sordini.compat.NumberedProducer"
        self._program = Program(main, bootstrap, self.topic, PARTITIONS[self.topic], 2000)

    def has_begun(self):
        return bool(self._program.out)

    def end(self):
        self._program.feed("enough")
        self._program.end()

    def kill(self):
        self._program.kill()

    def told(self):
        """What was acknowledged, as {(partition, offset): number}, and what was sent."""
        acknowledged = {}
        for line in self._program.out[:-1]:
            what, *rest = line.split()
            assert what == "at", f"an idempotent producer with time enough fails nothing: {line}"
            partition, offset, number = (int(word) for word in rest)
            assert acknowledged.setdefault((partition, offset), number) == number
        last = self._program.out[-1].split()
        assert last[0] == "sent" and last[2:] == ["failed", "0"], last
        return acknowledged, int(last[1])


class LibrdkafkaLoad:
    """confluent-kafka's producer, idempotent, with delivery reports."""

    def __init__(self, bootstrap, topic, **config):
        self.topic = topic
        self._acknowledged, self._failed, self._sent = {}, [], 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 200,
                "linger.ms": 2,
                "log_level": 0,
                **config,
            }
        )
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        partitions = PARTITIONS[self.topic]
        while not self._enough.is_set():
            for _ in range(8):
                number = self._sent
                self._producer.produce(
                    self.topic, str(number), partition=number % partitions, on_delivery=self._note
                )
                self._sent += 1
            self._producer.poll(0.01)
            time.sleep(0.005)

    def _note(self, error, message):
        if error is not None:
            self._failed.append(str(error))
            return
        place = (message.partition(), message.offset())
        number = int(message.value())
        assert self._acknowledged.setdefault(place, number) == number

    def has_begun(self):
        return bool(self._acknowledged)

    def end(self):
        self._enough.set()
        self._thread.join(10)
        assert self._producer.flush(SETTLE_S) == 0, "everything is delivered in the end"

    def kill(self):
        self._enough.set()

    def told(self):
        assert self._failed == []
        return dict(self._acknowledged), self._sent


class ConsoleLoad:
    """kafka-console-producer with its own defaults, fed with numbered lines as they come."""

    topic = "by-console"

    def __init__(self, bootstrap):
        self._program = Program(
            CLASSES["kafka-console-producer"], "--bootstrap-server", bootstrap,
            "--topic", self.topic, "--request-required-acks", "all",
        )  # fmt: skip
        self._sent = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self):
        while not self._enough.is_set():
            self._program.feed("".join(f"{self._sent + n}\n" for n in range(10)))
            self._sent += 10
            time.sleep(0.02)

    def has_begun(self):
        return self._sent > 100

    def end(self):
        self._enough.set()
        self._thread.join(10)
        self._program.end()

    def kill(self):
        self._enough.set()
        self._program.kill()

    def told(self):
        """It prints no offsets; what it gave up after its three retries, it says."""
        return {}, self._sent

    def given_up(self):
        return sum("Error when sending message" in line for line in self._program.err)


class Group:
    """Two members of one group, one of which comes and goes; they note what they are handed.

    One thread drives both in turn, so that what was handed out and what was committed have an
    order.
    """

    def __init__(self, bootstrap, topic):
        self._bootstrap, self._topic = bootstrap, topic
        # By partition: the offset after the last that was handed out, and the last commit that
        # was answered.
        self.next, self.committed = {}, {}
        self.problems, self.commits, self.records = [], 0, 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _member(self):
        member = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "through-kills",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "check.crcs": True,
                "reconnect.backoff.max.ms": 200,
                "fetch.wait.max.ms": 50,
                # A member whose farewell met a dead broker holds the others up this long.
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "log_level": 0,
            }
        )
        member.subscribe([self._topic])
        return member

    def _run(self):
        stays, guest, since = self._member(), None, time.monotonic()
        while not self._enough.is_set():
            self._take(stays)
            if guest is not None:
                self._take(guest)
            if time.monotonic() - since > 3:
                if guest is None:
                    guest = self._member()
                else:
                    guest.close()
                    guest = None
                since = time.monotonic()
        for member in (stays, guest):
            if member is not None:
                member.close()

    def _take(self, member):
        try:
            messages = [m for m in member.consume(200, timeout=0.05) if m.error() is None]
            for message in messages:
                self._note(message.partition(), message.offset())
            if messages:
                after = {m.partition(): m.offset() + 1 for m in messages}
                offsets = [TopicPartition(self._topic, p, offset) for p, offset in after.items()]
                done = member.commit(offsets=offsets, asynchronous=False)
                self.commits += 1
                for place in done:
                    if place.error is None:
                        self.committed[place.partition] = place.offset
        except KafkaException:
            # Not answered, or refused because the group moved on: read again from the last one.
            pass

    def _note(self, partition, offset):
        expected = self.next.get(partition, 0)
        if offset > expected:
            self.problems.append(f"{partition}: {expected} to {offset - 1} were skipped")
        if offset < self.committed.get(partition, 0):
            self.problems.append(f"{partition}: {offset} again after {self.committed[partition]}")
        self.next[partition] = max(expected, offset + 1)
        self.records += 1

    def catch_up(self, ends):
        deadline = time.monotonic() + SETTLE_S
        while any(self.next.get(partition, 0) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"the group stopped at {self.next} of {ends}"
            time.sleep(0.1)

    def end(self):
        self._enough.set()
        self._thread.join(SETTLE_S)


def read_all(bootstrap, topic):
    """Everything in a topic: {partition: [(offset, number)]}."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    found = {}
    for partition in range(PARTITIONS[topic]):
        place = TopicPartition(topic, partition, 0)
        _, end = reader.get_watermark_offsets(place, 30)
        records = found.setdefault(partition, [])
        if end == 0:
            continue
        reader.assign([place])
        deadline = time.monotonic() + SETTLE_S
        while not records or records[-1][0] < end - 1:
            assert time.monotonic() < deadline, f"{topic}-{partition}: {len(records)} of {end}"
            for message in reader.consume(1000, timeout=0.5):
                assert message.error() is None, message.error()
                records.append((message.offset(), int(message.value())))
    reader.close()
    return found


def check(topic, found, acknowledged, sent, given_up=0):
    """Every number is there once and in order, and where it was said to be."""
    partitions = PARTITIONS[topic]
    missing = 0
    for partition, records in found.items():
        offsets = [offset for offset, _ in records]
        assert offsets == list(range(len(records))), f"{topic}-{partition}: offsets have no gap"
        numbers = [number for _, number in records]
        expected = range(partition, sent, partitions)
        assert len(set(numbers)) == len(numbers), f"{topic}-{partition}: doubled"
        assert numbers == sorted(numbers), f"{topic}-{partition}: reordered"
        lost = sorted(set(expected) - set(numbers))
        missing += len(lost)
        assert missing <= given_up, f"{topic}-{partition}: lost {lost[:10]}"
        assert set(numbers) <= set(expected), f"{topic}-{partition}: invented"
    for (partition, offset), number in acknowledged.items():
        at = found[partition]
        assert offset < len(at) and at[offset][1] == number, (
            f"{topic}-{partition}: {number} was acknowledged at {offset}"
        )


def create_topics(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    flushed = {"flush.messages": "1", **CONFIGS}
    topics = [
        NewTopic(name, count, 1, config=flushed if name.endswith("lz4") else CONFIGS)
        for name, count in PARTITIONS.items()
    ]
    for made in admin.create_topics(topics).values():
        made.result(30)


def wait_until_begun(loads):
    deadline = time.monotonic() + SETTLE_S
    while not all(load.has_begun() for load in loads):
        assert time.monotonic() < deadline, "all clients are at work"
        time.sleep(0.05)


@pytest.fixture
def at_work(own_broker):
    """All clients at work on a broker of their own."""
    bootstrap = own_broker.start().bootstrap
    create_topics(bootstrap)
    loads = [
        JavaLoad(bootstrap),
        ConsoleLoad(bootstrap),
        LibrdkafkaLoad(bootstrap, "by-librdkafka"),
        LibrdkafkaLoad(bootstrap, "by-librdkafka-lz4", **{"compression.type": "lz4"}),
    ]
    group = Group(bootstrap, "by-librdkafka")
    yield loads, group
    group.end()
    for load in loads:
        load.kill()


def test_kills_under_stock_clients(own_broker, at_work):
    loads, group = at_work
    wait_until_begun(loads)
    chance = random.Random(SEED)
    print(f"FAULT_SEED={SEED}")
    kills, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until or kills < 5:
        time.sleep(chance.uniform(*UP_S))
        own_broker.kill()
        own_broker.start()
        kills += 1
    for load in loads:
        load.end()
    totals = {}
    for load in loads:
        found = read_all(own_broker.bootstrap, load.topic)
        acknowledged, sent = load.told()
        given_up = load.given_up() if isinstance(load, ConsoleLoad) else 0
        check(load.topic, found, acknowledged, sent, given_up)
        totals[load.topic] = sent - given_up
        if load.topic == "by-librdkafka":
            group.catch_up({partition: len(records) for partition, records in found.items()})
    group.end()
    assert group.problems == []
    assert own_broker.stop() in (0, 143)
    assert "panicked" not in (own_broker.dir / "broker.log").read_text(errors="replace")
    CLOSING_LINES.append(
        f"faults: {kills} kills, acknowledged {totals}, "
        f"group handed out {group.records} in {group.commits} commits"
    )
    assert min(totals.values()) > 100, "there was a load"
