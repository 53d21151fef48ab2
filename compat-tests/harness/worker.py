"""The worker of librdkafka: it reads a topic, writes to another, and commits both in transactions.

It is a process of its own, so that a test can kill it: `python -m harness.worker BOOTSTRAP NAME
GROUP SOURCE SINK PARTITIONS JOURNAL`. workers.py says what all workers do.
"""

import faulthandler
import json
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from .exactly_once import ABORTED, COMMITTED, COMMITTING, PARTS, Output

CALL_S = 15
# A transaction has the records of this time, and at most this many. Each tenth one is aborted.
_COLLECT_S, _MOST, _ABORT_EACH = 0.05, 20, 10
SHORT_TIMEOUTS = {
    "socket.timeout.ms": 3000,
    "socket.connection.setup.timeout.ms": 1000,
    "topic.metadata.refresh.interval.ms": 500,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.max.ms": 200,
    "log_level": 0,
}


class Worker:
    def __init__(self, bootstrap, name, group, source, sink, partitions, journal):
        self._name, self._sink, self._partitions = name, sink, int(partitions)
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._servers = {"bootstrap.servers": bootstrap, **SHORT_TIMEOUTS}
        self._collected, self._producer, self._count, self._is_ended = [], None, 0, False
        self._consumer = Consumer(
            {
                **self._servers,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 50,
            }
        )
        self._consumer.subscribe(
            [source], on_assign=self._assigned, on_revoke=self._forget, on_lost=self._forget
        )
        signal.signal(signal.SIGTERM, self._end)
        faulthandler.register(signal.SIGQUIT)

    def _end(self, *_):
        self._is_ended = True

    def _assigned(self, _, partitions):
        self._note(assigned=[it.partition for it in partitions])

    def _forget(self, *_):
        """Drops collected records: another member may own their partitions now."""
        self._collected = []

    def _note(self, **step):
        os.write(self._journal, (json.dumps(step) + "\n").encode())

    def run(self):
        while not self._is_ended:
            try:
                if self._producer is None:
                    self._start_producer()
                self._collect()
                if self._collected:
                    self._process()
            except KafkaException as error:
                self._recover(error.args[0])
        self._consumer.close()

    def _start_producer(self):
        config = {"transactional.id": self._name, "transaction.timeout.ms": 10_000, "linger.ms": 0}
        # If the broker of the group's coordinator leaves the metadata, librdkafka 2.16 looks for
        # the next coordinator only when the state of a connection changes. Until then
        # send_offsets_to_transaction blocks, beyond its timeout (librdkafka issues 5511 and 5456).
        config["connections.max.idle.ms"] = 2000
        producer = Producer({**self._servers, **config})
        producer.init_transactions(CALL_S)
        self._producer = producer

    def _collect(self):
        self._collected, until = [], time.monotonic() + _COLLECT_S
        while len(self._collected) < _MOST and time.monotonic() < until:
            message = self._consumer.poll(_COLLECT_S)
            if message is not None and message.error() is None:
                self._collected.append(message)

    def _process(self):
        self._count += 1
        # The process id makes names of a restarted worker unique.
        name = f"{self._name}.{os.getpid()}.{self._count}"
        self._note(begin=name)
        self._producer.begin_transaction()
        positions = {}
        for message in self._collected:
            source, offset = message.partition(), message.offset()
            positions[message.topic(), source] = offset + 1
            for part in range(PARTS):
                partition = (source + part) % self._partitions
                output = str(Output(name, source, offset, part))
                self._note(send=output, partition=partition)
                self._producer.produce(self._sink, output, partition=partition)
        offsets = [TopicPartition(*place, offset) for place, offset in positions.items()]
        metadata = self._consumer.consumer_group_metadata()
        self._producer.send_offsets_to_transaction(offsets, metadata, CALL_S)
        if self._count % _ABORT_EACH == 0:
            self._abort()
            return
        self._note(outcome=COMMITTING)
        self._retry(self._producer.commit_transaction)
        self._note(outcome=COMMITTED)

    def _retry(self, end):
        while True:
            try:
                return end(CALL_S)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise

    def _abort(self):
        self._retry(self._producer.abort_transaction)
        self._note(outcome=ABORTED)
        self._rewind()

    def _recover(self, error):
        """Aborts the transaction, or replaces the producer, and reads again from the group."""
        self._note(error=str(error))
        if self._producer is not None and error.txn_requires_abort():
            try:
                return self._abort()
            except KafkaException as again:
                self._note(error=str(again))
        self._producer = None
        self._rewind()

    def _rewind(self):
        """Goes back to the committed offsets of the assigned partitions."""
        while not self._is_ended:
            try:
                for place in self._consumer.committed(self._consumer.assignment(), CALL_S):
                    if place.error is not None:
                        raise KafkaException(place.error)
                    offset = max(place.offset, 0)
                    self._consumer.seek(TopicPartition(place.topic, place.partition, offset))
                return
            except KafkaException as error:
                self._note(error=str(error))
                time.sleep(0.1)


if __name__ == "__main__":
    Worker(*sys.argv[1:]).run()
