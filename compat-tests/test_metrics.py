"""Metrics of groups, errors and waiting requests under a stock client."""

import json
import re
import socket
import struct
import time
import urllib.request

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import SORDINI_KIND
from harness.paths import ROOT

DEADLINE_S = 30
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)",?')


class Scrape:
    """The samples of one GET /metrics, in valid Prometheus format."""

    def __init__(self, broker):
        self.samples, self.types = {}, {}
        for line in get(broker, "/metrics").splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert name not in self.types, f"{name} has two places"
                assert (kind == "counter") == name.endswith("_total"), line
                self.types[name] = kind
            elif line and not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()
                series = (name, frozenset(LABEL.findall(labels or "")))
                assert series not in self.samples, line
                self.samples[series] = float(value)

    def get(self, name, **labels):
        return self.samples.get((name, frozenset(labels.items())))

    def error(self, api, error):
        return self.get("kafka_server_request_errors_total", api=api, error=error)


def get(broker, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}{path}", timeout=10) as reply:
        return reply.read().decode()


def eventually(broker, check):
    """Scrapes until `check` passes. Returns that scrape."""
    deadline = time.monotonic() + DEADLINE_S
    while not check(scrape := Scrape(broker)):
        assert time.monotonic() < deadline, "\n".join(map(str, scrape.samples.items()))
        time.sleep(0.1)
    return scrape


@pytest.fixture
def serving(kind, own_broker):
    if kind != SORDINI_KIND:
        pytest.skip("Apache Kafka has no /metrics")
    own_broker.settings["auto.create.topics.enable"] = "false"
    return own_broker.start()


def create(broker, name, partitions, **config):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)


def produce(broker, topic, records, **config):
    """Produces records of (partition, timestamp in milliseconds, value). Returns error codes."""
    errors = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 500, **config})
    for partition, timestamp, value in records:
        producer.produce(
            topic, value, partition=partition, timestamp=timestamp,
            on_delivery=lambda error, _: errors.append(error.code()) if error else None,
        )
    assert producer.flush(DEADLINE_S) == 0
    return errors


def test_a_group_and_its_lag(serving):
    create(serving, "lag", 2)
    now_ms = int(time.time() * 1000)
    # The record at offset n is 100 - n minutes old.
    old = [(0, now_ms - (100 - n) * 60_000, b"old") for n in range(10)]
    assert produce(serving, "lag", old + [(1, now_ms, b"new")] * 5) == []
    consumer = Consumer({
        "bootstrap.servers": serving.bootstrap,
        "group.id": "readers",
        "enable.auto.commit": False,
        "auto.offset.reset": "latest",
        "fetch.wait.max.ms": 5000,
    })
    consumer.subscribe(["lag"])
    # Polling joins the group. There are no records to read at the end.
    joined = time.monotonic() + DEADLINE_S
    while not consumer.assignment() and time.monotonic() < joined:
        assert consumer.poll(0.2) is None
    consumer.commit(
        offsets=[TopicPartition("lag", 0, 4), TopicPartition("lag", 1, 5)], asynchronous=False
    )

    def at(scrape, what, partition):
        labels = {"consumergroup": "readers", "topic": "lag", "partition": str(partition)}
        return scrape.get(f"kafka_consumergroup_{what}", **labels)

    def is_parked(scrape):
        return scrape.get("kafka_server_purgatory_size", operation="Fetch") >= 1

    consumer.poll(0.2)
    scrape = eventually(serving, is_parked)
    assert scrape.get("kafka_consumergroup_members", consumergroup="readers") == 1
    assert scrape.get("kafka_consumergroup_state", consumergroup="readers", state="Stable") == 1
    assert scrape.get("kafka_server_groups", state="Stable") == 1
    assert scrape.get("kafka_server_groups", state="Empty") == 0
    assert scrape.get("kafka_server_purgatory_size", operation="Heartbeat") == 1
    assert scrape.get("kafka_server_purgatory_size", operation="Rebalance") == 0
    assert scrape.get("kafka_topic_partitions", topic="lag") == 2
    assert (at(scrape, "current_offset", 0), at(scrape, "current_offset", 1)) == (4, 5)
    assert (at(scrape, "lag", 0), at(scrape, "lag", 1)) == (6, 0)
    assert at(scrape, "lag_seconds", 1) == 0
    age = at(scrape, "lag_seconds", 0)
    assert 96 * 60 <= age < 96 * 60 + DEADLINE_S, f"the record at offset 4 is not {age} s old"
    # The lag in seconds grows while there are no commits, and is gone without a lag in records.
    later = eventually(serving, lambda scrape: at(scrape, "lag_seconds", 0) > age)
    assert at(later, "lag", 0) == 6
    consumer.commit(offsets=[TopicPartition("lag", 0, 10)], asynchronous=False)
    assert (at(Scrape(serving), "lag", 0), at(Scrape(serving), "lag_seconds", 0)) == (0, 0)

    consumer.close()
    scrape = eventually(
        serving, lambda it: it.get("kafka_consumergroup_members", consumergroup="readers") == 0
    )
    assert scrape.get("kafka_consumergroup_state", consumergroup="readers", state="Empty") == 1
    assert scrape.get("kafka_consumergroup_state", consumergroup="readers", state="Stable") is None
    assert scrape.get("kafka_server_purgatory_size", operation="Heartbeat") == 0
    # The response to the first join of a new member assigns its id.
    assert scrape.error("JoinGroup", "MEMBER_ID_REQUIRED") == 1
    assert scrape.error("Heartbeat", "NONE") is None


def test_errors_of_requests(serving):
    create(serving, "small", 1, max_message_bytes="1000", flush_messages="1")
    now_ms = int(time.time() * 1000)
    assert produce(serving, "small", [(0, now_ms, b"fits")]) == []
    too_large = [(0, now_ms, b"x" * 5000)]
    assert produce(serving, "small", too_large) == [KafkaError.MSG_SIZE_TOO_LARGE]

    consumer = Consumer({
        "bootstrap.servers": serving.bootstrap, "group.id": "g", "auto.offset.reset": "error",
    })
    consumer.assign([TopicPartition("small", 0, 1000)])
    assert consumer.poll(DEADLINE_S).error().code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()
    AdminClient({"bootstrap.servers": serving.bootstrap}).list_topics("absent", timeout=DEADLINE_S)
    produce_without_acks(serving, "absent")
    assert Scrape(serving).get("kafka_server_fetch_sessions") == 0
    begin_fetch_session(serving, "small")

    scrape = eventually(serving, lambda it: it.get("kafka_server_fetch_sessions") == 1)
    assert scrape.error("Produce", "UNKNOWN_TOPIC_OR_PARTITION") == 1
    assert scrape.error("Produce", "MESSAGE_TOO_LARGE") == 1
    assert scrape.error("Fetch", "OFFSET_OUT_OF_RANGE") >= 1
    assert scrape.error("Metadata", "UNKNOWN_TOPIC_OR_PARTITION") >= 1
    # A batch that is too large counts as a request of the topic, but not as a failed one. A topic
    # that does not exist has no series.
    assert scrape.get("kafka_topic_produce_requests_total", topic="small") == 2
    assert scrape.get("kafka_topic_failed_produce_requests_total", topic="small") == 0
    assert scrape.get("kafka_topic_produce_requests_total", topic="absent") is None
    assert scrape.get("kafka_topic_messages_in_total", topic="small") == 1
    assert scrape.get("kafka_topic_fetch_requests_total", topic="small") >= 2
    assert scrape.get("kafka_topic_failed_fetch_requests_total", topic="small") == 0
    assert scrape.get("kafka_log_flush_seconds_count") >= 1
    assert scrape.get("kafka_log_offline_dirs") == 0
    assert scrape.get("kafka_server_offline_partitions") == 0
    assert scrape.get("kafka_server_fetch_session_evictions_total") == 0
    assert json.loads(get(serving, "/health"))["status"] == "ok"


def test_a_directory_that_fails(kind, own_broker):
    if kind != SORDINI_KIND:
        pytest.skip("Apache Kafka has no /metrics")
    first, second = own_broker.dir / "first", own_broker.dir / "second"
    own_broker.settings["log.dirs"] = f"{first},{second}"
    own_broker.start()
    create(own_broker, "spread", 4, segment_ms="50")
    now_ms = int(time.time() * 1000)

    def everywhere(timestamp):
        return [(partition, timestamp, b"value") for partition in range(4)]

    assert produce(own_broker, "spread", everywhere(now_ms)) == []
    before = Scrape(own_broker)
    assert before.get("kafka_log_offline_dirs") == 0
    assert before.get("kafka_server_offline_partitions") == 0
    second.rename(own_broker.dir / "gone")
    # Its partitions roll their segments and detect the failure.
    failed = produce(own_broker, "spread", everywhere(now_ms + 1000), **{"message.timeout.ms": 3000})
    assert len(failed) == 2
    scrape = eventually(own_broker, lambda it: it.get("kafka_server_offline_partitions") == 2)
    assert scrape.get("kafka_log_offline_dirs") == 1
    assert scrape.error("Produce", "KAFKA_STORAGE_ERROR") >= 2
    # Kafka does not count a failed disk as a failed request of the topic.
    assert scrape.get("kafka_topic_failed_produce_requests_total", topic="spread") == 0


def test_all_metrics_are_documented(serving):
    create(serving, "any", 1)
    produce(serving, "any", [(0, int(time.time() * 1000), b"value")])
    page = (ROOT / "docs/metrics.md").read_text()
    names = [name for name in Scrape(serving).types if not name.startswith("process_")]
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in page] == []


def produce_without_acks(broker, topic):
    """Sends Produce version 3 with acks=0 and no records. The broker closes the connection."""
    body = struct.pack(">hhii", -1, 0, 1000, 1) + string(topic) + struct.pack(">iii", 1, 0, -1)
    assert request(broker, 0, 3, body) == b""


def begin_fetch_session(broker, topic):
    """Sends Fetch version 7 to begin a fetch session. librdkafka uses no sessions."""
    body = struct.pack(">iiiibiii", -1, 0, 0, 1000, 0, 0, 0, 1) + string(topic)
    body += struct.pack(">iiqqii", 1, 0, 0, -1, 1000, 0)
    assert request(broker, 1, 7, body) != b""


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def request(broker, api, version, body):
    """Sends a request. Returns the first bytes of the response, none if the connection closed."""
    request = struct.pack(">hhih", api, version, 7, -1) + body
    with socket.create_connection(("127.0.0.1", broker.port), timeout=DEADLINE_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        return connection.recv(8)
