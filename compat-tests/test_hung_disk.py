"""A volume that hangs in a rename. Probes still respond, and clients still use other partitions."""

import json
import time
import urllib.error
import urllib.request

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import SORDINI_KIND
from harness.system_calls import can_inject, injected

# Seconds of a rename. After 10 of them the node is not ready.
HANGS_S = 30
# Time limit of a probe, and of a produced record, in seconds. What waits for the volume takes longer.
ANSWERS_S = 10


def probe(broker, path):
    """Sends a GET. Returns the status and the body of the response."""
    url = f"http://127.0.0.1:{broker.http_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=ANSWERS_S) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def produce(broker, topic, partitions):
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": ANSWERS_S * 1000})
    failed = []
    for partition in range(partitions):
        on_delivery = lambda error, _: failed.append(error) if error else None  # noqa: E731
        producer.produce(topic, b"value", partition=partition, on_delivery=on_delivery)
    assert producer.flush(ANSWERS_S + 5) == 0
    assert not failed


def test_a_hanging_deletion_stops_neither_probes_nor_producers(own_broker, kind):
    if kind != SORDINI_KIND or not can_inject():
        pytest.skip("needs strace, root, and a process that is no JVM")
    own_broker.settings["log.dirs"] = f"{own_broker.dir}/first,{own_broker.dir}/second"
    own_broker.start()
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
    for topic in ("gone", "kept"):
        admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(20)
    produce(own_broker, "kept", 2)
    (hung,) = (own_broker.dir / "second").glob("gone-*")
    assert probe(own_broker, "/readyz") == (200, {"status": "ready"})
    reason = {"reason": "hung_log_directories", "log_directories": [str(hung.parent)]}
    delay = f"delay_enter={HANGS_S}s"
    with injected(own_broker, hung, "rename,renameat,renameat2", delay):
        deadline = time.monotonic() + HANGS_S
        deleted = admin.delete_topics(["gone"])["gone"]
        is_reported = False
        while not is_reported:
            assert probe(own_broker, "/livez") == (200, {"status": "alive"})
            assert probe(own_broker, "/health")[0] == 200
            status, readiness = probe(own_broker, "/readyz")
            is_reported = status == 503 and reason in readiness["reasons"]
            produce(own_broker, "kept", 2)
            assert time.monotonic() < deadline, readiness
            time.sleep(0.2)
        assert hung.exists(), "the rename hangs"
    # The end of strace ends the delay of the rename.
    deleted.result(30)
    deadline = time.monotonic() + 20
    while hung.exists():
        assert time.monotonic() < deadline, "the directory is not renamed"
        time.sleep(0.1)
    while (readiness := probe(own_broker, "/readyz")) != (200, {"status": "ready"}):
        assert time.monotonic() < deadline, readiness
        time.sleep(0.1)
