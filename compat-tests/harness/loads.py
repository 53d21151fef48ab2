"""Stock clients that run during faults. Each records the responses that it got, and when."""

import collections
import logging
import subprocess
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from .paths import CLASSPATH, JAVA
from .tools import CLASSES

SETTLE_S = 90
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"


def noted_in(errors):
    """Returns an error callback that ignores broken connections, because the client reconnects."""

    def note(error):
        if error.code() not in (KafkaError._TRANSPORT, KafkaError._RESOLVE):
            errors.append(str(error))

    return note


class Told(logging.Handler):
    """A log handler that keeps the last lines of a librdkafka client."""

    def __init__(self, lines=60):
        super().__init__()
        self._lines = collections.deque(maxlen=lines)

    def emit(self, record):
        self._lines.append(f"{time.monotonic():.2f} {record.getMessage()}")

    def note(self, line):
        self._lines.append(f"{time.monotonic():.2f} {line}")

    def logger(self, name):
        logger = logging.Logger(name)
        logger.addHandler(self)
        return logger

    def __str__(self):
        return "\n".join(self._lines)


class Program:
    """A Java client process. Threads collect its output."""

    def __init__(self, main, *args):
        self._process = subprocess.Popen(
            [*JAVA, QUIET, "-cp", CLASSPATH, main, *(str(arg) for arg in args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # The lines of its output, and the time of each.
        self.out, self.times, self.err = [], [], []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self.err.extend(self._process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.times.append(time.monotonic())
            self.out.append(line)

    def feed(self, text):
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end(self):
        """Closes its input and waits until the program ends by itself."""
        self._process.stdin.close()
        code = self._process.wait(SETTLE_S)
        for reader in self._readers:
            reader.join(10)
        assert code == 0, f"exit {code}: {''.join(self.err[-20:])}"

    def kill(self):
        self._process.kill()
        self._process.wait()


class JavaLoad:
    """tools/NumberedProducer.java: several requests in flight, and a callback per record."""

    def __init__(self, bootstrap, topic, partitions, rate=2000, **config):
        self.topic, self.partitions = topic, partitions
        more = (f"{key.replace('_', '.')}={value}" for key, value in config.items())
        main = "sordini.compat.NumberedProducer"
        self._program = Program(main, bootstrap, topic, partitions, rate, *more)

    def has_begun(self):
        return bool(self._program.out)

    def end(self):
        self._program.feed("enough")
        self._program.end()

    def progress(self):
        """Returns the times of acknowledged records: [(time, partition)]."""
        lines = zip(list(self._program.times), list(self._program.out))
        return [(at, int(line.split()[1])) for at, line in lines if line.startswith("at ")]

    @property
    def errors(self):
        """Returns the lines of its log."""
        return self._program.err

    def kill(self):
        self._program.kill()

    def told(self):
        """Returns acknowledged records as {(partition, offset): number}, and how many were sent."""
        acknowledged = {}
        for line in self._program.out[:-1]:
            what, *rest = line.split()
            assert what == "at", f"an idempotent producer with time enough fails nothing: {line}"
            partition, offset, number = (int(word) for word in rest)
            if offset >= 0:  # -1: a duplicate whose offset the broker no longer has.
                assert acknowledged.setdefault((partition, offset), number) == number
        last = self._program.out[-1].split()
        assert last[0] == "sent" and last[2:] == ["failed", "0"], last
        return acknowledged, int(last[1])


class LibrdkafkaLoad:
    """confluent-kafka's producer, idempotent, with delivery reports."""

    def __init__(self, bootstrap, topic, partitions, pause_s=0.005, **config):
        self.topic, self.partitions, self._pause_s = topic, partitions, pause_s
        self._acknowledged, self._failed, self._sent, self._progress = {}, [], 0, []
        self.errors = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 200,
                "linger.ms": 2,
                "log_level": 0,
                "error_cb": noted_in(self.errors),
                **config,
            }
        )
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._enough.is_set():
            for _ in range(8):
                number = self._sent
                self._producer.produce(
                    self.topic,
                    str(number),
                    partition=number % self.partitions,
                    on_delivery=self._note,
                )
                self._sent += 1
            self._producer.poll(0.01)
            time.sleep(self._pause_s)

    def _note(self, error, message):
        if error is not None:
            self._failed.append(str(error))
            return
        number = int(message.value())
        # If later batches are acknowledged already, librdkafka takes a sequence error as proof that
        # this batch is stored, at an unknown offset. The final check finds the record anyway.
        if message.offset() is not None:
            place = (message.partition(), message.offset())
            before = self._acknowledged.setdefault(place, number)
            assert before == number, f"{before} and {number} are acknowledged at {place}"
        self._progress.append((time.monotonic(), message.partition(), number))

    def progress(self):
        return [(at, partition) for at, partition, _ in list(self._progress)]

    def sent(self):
        """Returns the next number to send."""
        return self._sent

    def acknowledged_since(self, number):
        """Returns the acknowledgements of the records from `number` on."""
        return [event for event in list(self._progress) if event[2] >= number]

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
    """kafka-console-producer with its defaults. A thread writes numbered lines to its input."""

    partitions = 1

    def __init__(self, bootstrap, topic):
        self.topic = topic
        self._program = Program(
            CLASSES["kafka-console-producer"], "--bootstrap-server", bootstrap,
            "--topic", topic, "--request-required-acks", "all",
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
        """Returns no offsets, because the tool prints none, and how many lines were sent."""
        return {}, self._sent

    def given_up(self):
        return sum("Error when sending message" in line for line in self._program.err)


class Group:
    """A group of one member, or with a guest: a second member that joins and leaves repeatedly.

    The members record what they receive and commit. One thread drives both, so that received
    records and commits have an order.
    """

    def __init__(self, bootstrap, topic, has_guest=True, protocol="classic", **config):
        self._bootstrap, self.topic = bootstrap, topic
        self._has_guest, self._protocol, self._config = has_guest, protocol, config
        # By partition: the offset after the last received record, and the last offset whose commit
        # got a response.
        self.next, self.committed = {}, {}
        self.problems, self.commits, self.records = [], 0, 0
        self.errors, self.told = [], Told()
        # The received records by partition and offset, and the times of commits.
        self.seen, self._progress = {}, []
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
                "group.protocol": self._protocol,
                "log_level": 7,
                "debug": "cgrp",
                "error_cb": noted_in(self.errors),
                **(self._classic_timeouts() if self._protocol == "classic" else {}),
                **self._config,
            },
            logger=self.told.logger("member"),
        )
        member.subscribe([self.topic])
        return member

    def _classic_timeouts(self):
        """If a member's LeaveGroup is lost, the other one waits for the end of its session. A single
        member keeps the clients' default."""
        session = 6000 if self._has_guest else 45_000
        return {"session.timeout.ms": session, "heartbeat.interval.ms": 500}

    def _run(self):
        stays, guest, since = self._member(), None, time.monotonic()
        while not self._enough.is_set():
            self._take(stays)
            if guest is not None:
                self._take(guest)
            if self._has_guest and time.monotonic() - since > 3:
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
                self._note(message)
            if messages:
                after = {m.partition(): m.offset() + 1 for m in messages}
                offsets = [TopicPartition(self.topic, p, offset) for p, offset in after.items()]
                done = member.commit(offsets=offsets, asynchronous=False)
                self.commits += 1
                for place in done:
                    if place.error is None:
                        self.committed[place.partition] = place.offset
                        self._progress.append((time.monotonic(), place.partition))
        except KafkaException as error:
            # No response, or refused after a rebalance: read again from the last commit.
            self.told.note(f"member is told: {error}")

    def _note(self, message):
        partition, offset, number = message.partition(), message.offset(), int(message.value())
        if self.seen.setdefault((partition, offset), number) != number:
            self.problems.append(f"{partition}: {number} at {offset}, which was another record")
        expected = self.next.get(partition, 0)
        if offset > expected:
            self.problems.append(f"{partition}: {expected} to {offset - 1} were skipped")
        if offset < self.committed.get(partition, 0):
            self.problems.append(f"{partition}: {offset} again after {self.committed[partition]}")
        self.next[partition] = max(expected, offset + 1)
        self.records += 1

    def progress(self):
        """Returns the times of completed commits: [(time, partition)]."""
        return list(self._progress)

    def catch_up(self, ends):
        deadline = time.monotonic() + SETTLE_S
        while any(self.next.get(partition, 0) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"the group stopped at {self.next} of {ends}"
            time.sleep(0.1)

    def end(self):
        self._enough.set()
        self._thread.join(SETTLE_S)


def wait_until_begun(loads):
    deadline = time.monotonic() + SETTLE_S
    while not all(load.has_begun() for load in loads):
        idle = [type(load).__name__ for load in loads if not load.has_begun()]
        assert time.monotonic() < deadline, f"not at work: {idle}"
        time.sleep(0.05)
