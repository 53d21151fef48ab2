"""Moves of replicas between the log directories of one broker: kafka-reassign-partitions with
`log_dirs`, and kafka-log-dirs."""

import json
import time

import pytest
from differential.transcript import Transcript
from harness.broker import Broker

DIRS = ("data", "other")
INVALID_REPLICATION_FACTOR = 38


@pytest.fixture(scope="module")
def broker(kind, tmp_path_factory):
    """A broker with two log directories that only these tests use."""
    dirs = ",".join(f"{{dir}}/{name}" for name in DIRS)
    broker = Broker(kind, tmp_path_factory.mktemp("log-dirs"), log_dirs=dirs).start()
    yield broker
    broker.stop()


@pytest.fixture
def plan(broker):
    """Writes a reassignment file with the directory of each partition of a topic."""

    def write(topic, *names):
        partitions = [
            {"topic": topic, "partition": at, "replicas": [1], "log_dirs": [str(broker.dir / name)]}
            for at, name in enumerate(names)
        ]
        file = broker.dir / f"{topic}-{'-'.join(names)}.json"
        file.write_text(json.dumps({"version": 1, "partitions": partitions}))
        return file

    return write


def described(shell, topic):
    """Returns a topic's replicas: {(directory, partition, is future): size}."""
    printed = shell(f"kafka-log-dirs --describe --topic-list {topic}", transcript=False).ok()
    (on_broker,) = json.loads(printed.lines[-1])["brokers"]
    last = lambda text, by: text.rsplit(by, 1)[1]  # noqa: E731
    return {
        (last(found["logDir"], "/"), int(last(it["partition"], "-")), it["isFuture"]): it["size"]
        for found in on_broker["logDirs"]
        for it in found["partitions"]
    }


def put(shell, file):
    """Moves the replicas to the directories in the file, and waits until they are there."""
    run = f"kafka-reassign-partitions --reassignment-json-file {file}"
    shell(f"{run} --execute", transcript=False).ok()
    is_done = lambda out: "progress" not in out and "completed" in out  # noqa: E731
    done = shell(f"{run} --verify", transcript=False, until=is_done, within=60)
    assert is_done(done.stdout), done


def test_reassign(shell, plan):
    shell("kafka-topics --create --topic moved --partitions 3").ok()
    lines = "".join(f"line {n}\n" for n in range(30))
    shell("kafka-console-producer --topic moved", stdin=lines).ok()
    put(shell, plan("moved", "data", "data", "data"))
    before = described(shell, "moved")
    file = plan("moved", "other", "data", "other")
    shell(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
    shell(f"kafka-reassign-partitions --verify --reassignment-json-file {file}",
          until=lambda out: out.count("completed successfully") == 3).ok()  # fmt: skip
    after = described(shell, "moved")
    assert sorted(after) == [("data", 1, False), ("other", 0, False), ("other", 2, False)]
    assert sorted(after.values()) == sorted(before.values())
    shell("kafka-console-consumer --topic moved --from-beginning --max-messages 30"
          " --timeout-ms 20000", sort=True).ok()  # fmt: skip


def test_refused(shell, broker, plan):
    shell("kafka-topics --create --topic staying").ok()
    put(shell, plan("staying", "data"))
    file = plan("staying", "none-such")
    shell(f"kafka-reassign-partitions --execute --timeout 2000 --reassignment-json-file {file}")
    shell(f"kafka-reassign-partitions --verify --reassignment-json-file {file}")
    assert set(described(shell, "staying")) == {("data", 0, False)}


def fill(shell, topic):
    shell(f"kafka-producer-perf-test --topic {topic} --num-records 8 --record-size 900000"
          " --throughput -1 --command-property acks=all batch.size=1", transcript=False).ok()  # fmt: skip


def test_throttle_and_cancel(shell, broker, plan):
    shell("kafka-topics --create --topic slow").ok()
    put(shell, plan("slow", "data"))
    fill(shell, "slow")
    file = plan("slow", "other")
    run = f"kafka-reassign-partitions --reassignment-json-file {file}"
    shell(f"{run} --execute --replica-alter-log-dirs-throttle 1000").ok()
    shell("kafka-configs --describe --entity-type brokers --entity-name 1").ok()
    shell(f"{run} --verify --preserve-throttles",
          until=lambda out: "is still in progress" in out).ok()  # fmt: skip
    assert set(described(shell, "slow")) == {("data", 0, False), ("other", 0, True)}
    shell(f"{run} --cancel").ok()
    assert set(described(shell, "slow")) == {("data", 0, False)}
    shell(f"{run} --verify").ok()
    shell("kafka-configs --describe --entity-type brokers --entity-name 1").ok()
    put(shell, file)
    assert set(described(shell, "slow")) == {("other", 0, False)}
    shell("kafka-get-offsets --topic slow").ok()


def test_a_copy_survives_kill_and_stop(shell, broker, plan):
    shell("kafka-topics --create --topic halfway").ok()
    put(shell, plan("halfway", "data"))
    fill(shell, "halfway")
    file = plan("halfway", "other")
    run = f"kafka-reassign-partitions --reassignment-json-file {file}"
    shell(f"{run} --execute --replica-alter-log-dirs-throttle 1000", transcript=False).ok()
    both = {("data", 0, False), ("other", 0, True)}
    assert set(described(shell, "halfway")) == both
    broker.kill()
    broker.start()
    assert set(described(shell, "halfway")) == both
    broker.stop()
    broker.start()
    assert set(described(shell, "halfway")) == both
    limit = "replica.alter.log.dirs.io.max.bytes.per.second"
    shell(f"kafka-configs --alter --entity-type brokers --entity-name 1 --delete-config {limit}",
          transcript=False).ok()  # fmt: skip
    shell(f"{run} --verify", until=lambda out: "completed successfully" in out, within=60).ok()
    assert set(described(shell, "halfway")) == {("other", 0, False)}
    shell("kafka-get-offsets --topic halfway").ok()


def test_the_controller_learns_at_once_which_directories_are_cordoned(kind, tmp_path):
    """A change of `cordoned.log.dirs` does not wait for the next heartbeat (KIP-1066)."""
    long = {"broker_heartbeat_interval_ms": 60_000, "broker_session_timeout_ms": 180_000}
    broker = Broker(kind, tmp_path, **long).start()
    t = Transcript(broker, "cordoned")
    topic = {"name": "held-back", "numPartitions": 1, "replicationFactor": 1, "configs": []}
    create = {"timeoutMs": 5000, "topics": [topic], "validateOnly": True}

    def creation_becomes(error_code):
        deadline = time.monotonic() + 10
        while (got := t.call("CreateTopics", 7, create)["topics"][0]["errorCode"]) != error_code:
            assert time.monotonic() < deadline, f"error {got}, not {error_code}"
            time.sleep(0.01)

    try:
        for value, error_code in (("*", INVALID_REPLICATION_FACTOR), ("", 0)):
            change = {"name": "cordoned.log.dirs", "configOperation": 0, "value": value}
            resource = {"resourceType": 4, "resourceName": "1", "configs": [change]}
            answer = t.call("IncrementalAlterConfigs", 1,
                            {"resources": [resource], "validateOnly": False})  # fmt: skip
            assert answer["responses"][0]["errorCode"] == 0, answer
            creation_becomes(error_code)
    finally:
        t.close()
        broker.stop()
