"""Compressed batches with wrong timestamps in their headers. Retention and ListOffsets use the
timestamps of the records."""

import time

import pytest
from differential.cases._bodies import append, list_offsets
from differential.records import GZIP, batch
from differential.transcript import Transcript
from harness.broker import Broker

_HOUR_MS = 3_600_000
_TIMEOUT_S = 20


@pytest.fixture
def client(kind, tmp_path):
    broker = Broker(kind, tmp_path, log_retention_check_interval_ms=200,
                    log_initial_task_delay_ms=100).start()  # fmt: skip
    client = Transcript(broker, "false headers")
    yield client
    client.close()
    broker.stop()


def offset_at(client, topic, timestamp):
    answer = client.call("ListOffsets", 7, list_offsets(topic, timestamp))
    return answer["topics"][0]["partitions"][0]["offset"]


def wait_until_empty(client, topic):
    """Waits until retention has deleted all records of a topic."""
    deadline = time.monotonic() + _TIMEOUT_S
    while offset_at(client, topic, -2) != offset_at(client, topic, -1):
        assert time.monotonic() < deadline, "old records are still there"
        time.sleep(0.1)


def test_retention_goes_by_the_records(client):
    now = int(time.time() * 1000)
    old, older = now - 2 * _HOUR_MS, now - 3 * _HOUR_MS

    def topic_with(timestamps, max_timestamp):
        topic = client.topic(1, retention_ms=_HOUR_MS)
        values = [b"a"] * len(timestamps)
        append(client, topic,
               batch(values, timestamps, attributes=GZIP, max_timestamp=max_timestamp))  # fmt: skip
        return topic

    # kafkajs sends this if only one of two records has a timestamp.
    fresh = topic_with([old, now], max_timestamp=old)
    ahead = topic_with([older, old], max_timestamp=now + _HOUR_MS // 2)
    control = topic_with([older, old], max_timestamp=old)
    wait_until_empty(client, ahead)
    wait_until_empty(client, control)
    assert offset_at(client, fresh, -2) == 0
    assert offset_at(client, fresh, old + 1) == 1
    assert offset_at(client, fresh, -3) == 1
