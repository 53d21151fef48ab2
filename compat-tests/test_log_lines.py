"""Log lines of one broker: a line for each change by a tool, and no warnings in a healthy run."""

import socket
import time

import pytest
from harness.broker import SORDINI_KIND
from harness.log_lines import LogLines
from harness.shell import Shell


@pytest.fixture(autouse=True)
def only_sordini(kind):
    if kind != SORDINI_KIND:
        pytest.skip("the lines are Sordini's own")


@pytest.fixture
def logged(own_broker):
    return LogLines(own_broker.dir / "broker.log")


def test_tools_leave_lines(own_broker, logged, tool_host):
    """Stock tools change topics, partitions, configs and features. Then the broker restarts."""
    own_broker.start()
    shell = Shell(own_broker, tool_host, None, record=False)

    def run(line):
        shell(line, transcript=False).ok()

    run("kafka-topics --create --topic orders --partitions 3 --config retention.ms=60000")
    run("kafka-topics --alter --topic orders --partitions 5")
    alter = "kafka-configs --alter --entity-type"
    run(f"{alter} topics --entity-name orders --add-config segment.ms=9000")
    run(f"{alter} brokers --entity-default --add-config message.max.bytes=2000012")
    run("kafka-topics --delete --topic orders")
    created = logged.with_text("topic created", topic="orders", partitions=3, replication_factor=1)
    assert len(created) == 1 and '["retention.ms"]' in created[0][1]
    assert logged.with_text("partitions added", topic="orders", partitions=2, total=5)
    assert logged.with_text("configs changed", kind='"topic"', name='"orders"')
    changed = logged.with_text("configs changed", kind='"broker"', name='"<default>"')
    assert '["message.max.bytes"]' in changed[0][1] and "2000012" not in changed[0][1]
    assert logged.with_text("topic deleted", topic="orders", partitions=5)
    assert logged.with_text("broker registered", broker=1)
    assert logged.with_text("controller became active")
    assert own_broker.stop() == 0
    own_broker.start()
    assert own_broker.stop() == 0
    # The properties have keys that Kafka needs and Sordini does not use yet.
    assert [text for _, text in logged.faults() if "have no effect yet" not in text] == []


def test_a_topic_with_many_partitions_is_one_line(own_broker, logged, tool_host):
    own_broker.start()
    shell = Shell(own_broker, tool_host, None, record=False)
    before = len(logged.all())
    shell("kafka-topics --create --topic many --partitions 9000", transcript=False).ok()
    assert logged.with_text("topic created", topic="many", partitions=9000)
    assert logged.with_text("roles of replicas changed", became_leader=9000)
    # On a busy machine, lines of the start or about slow operations may be among them.
    assert len(logged.all()) < before + 20
    own_broker.kill()


def sent(broker, first_bytes):
    """Sends bytes that are no Kafka request. Returns what the broker sends before it closes."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as connection:
        connection.sendall(first_bytes)
        try:
            return connection.recv(100)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    ("first_bytes", "looks_like"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", '"http"'),
        (bytes.fromhex("1603010200010001fc0303"), '"tls"'),
    ],
)
def test_other_protocols_are_named_once_a_minute(own_broker, logged, first_bytes, looks_like):
    own_broker.start()
    for _ in range(20):
        assert sent(own_broker, first_bytes) == b""
    logged.wait_for("connection closed: not Kafka's protocol")
    # Lines of the other connections, if there were any, are written before the stop ends.
    assert own_broker.stop() == 0
    lines = logged.with_text("connection closed: not Kafka's protocol")
    assert len(lines) == 1 and lines[0][0] == "WARN"
    assert f"looks_like={looks_like} address=127.0.0.1 " in lines[0][1]


def test_a_logger_sets_the_level_of_its_lines_only(own_broker, logged, tool_host):
    """Log levels that the stock tool changes are in effect at once, and end with the process."""
    own_broker.start()
    shell = Shell(own_broker, tool_host, None, record=False)
    loggers = "kafka-configs --entity-type broker-loggers --entity-name 1"
    network, manager = "kafka.network.SocketServer", "kafka.server.ReplicaManager"

    def run(line):
        return shell(line, transcript=False).ok()

    def levels():
        lines = run(f"{loggers} --describe").stdout.split("\n")[1:]
        return dict(line.split()[0].split("=") for line in lines if line.strip())

    def debug_lines(awaited=None):
        """Creates a topic. Returns the crates and texts of the DEBUG lines meanwhile."""
        since = LogLines(logged.path)
        run(f"kafka-topics --create --topic t{time.monotonic_ns()} --partitions 1")
        if awaited:
            since.wait_for(awaited)
        else:
            # Time for lines that should not be written.
            time.sleep(0.2)
        lines = since.of_level("DEBUG")
        # Lines of openraft have spans before the target.
        joined = " ".join(f"{target} {text}" for target, text in lines)
        crates = {it for it in ("openraft", "sordini") if f"{it}::" in joined}
        return crates, {text.split("=")[0] for _, text in lines}

    closed = "connection closed peer"
    quiet = (set(), set())
    assert debug_lines() == quiet
    assert levels()[network] == levels()["root"] == "INFO" and levels()["openraft"] == "OFF"
    for level in ("DEBUG", "TRACE"):
        run(f"{loggers} --alter --add-config {network}={level}")
        assert levels()[network] == level and levels()["kafka"] == "INFO"
        assert debug_lines(closed) == ({"sordini"}, {closed})
    run(f"{loggers} --alter --add-config openraft=DEBUG --delete-config {network}")
    assert levels()[network] == "INFO" and levels()["openraft"] == "DEBUG"
    crates, texts = debug_lines()
    assert crates == {"openraft"} and closed not in texts
    run(f"{loggers} --alter --add-config kafka=DEBUG --delete-config openraft")
    assert levels()[network] == "DEBUG"
    crates, texts = debug_lines(closed)
    assert "openraft" not in crates and closed in texts
    run(f"{loggers} --alter --delete-config kafka")
    assert debug_lines() == quiet
    changed = {text for _, text in logged.faults() if text.startswith("log level")}
    assert changed == {
        f'log level set logger="{network}" level="DEBUG"',
        f'log level set logger="{network}" level="TRACE"',
        f'log level unset logger="{network}"',
        'log level set logger="openraft" level="DEBUG"',
        'log level unset logger="openraft"',
        'log level set logger="kafka" level="DEBUG"',
        'log level unset logger="kafka"',
    }

    run(f"{loggers} --alter --add-config root=FATAL")
    since = LogLines(logged.path)
    run("kafka-topics --create --topic silent --partitions 1")
    assert set(levels().values()) == {"FATAL"} and since.all() == []
    refused = shell(f"{loggers} --alter --delete-config root", transcript=False)
    refusal = "Removing the log level of the root logger is not allowed"
    assert refusal in refused.stdout + refused.stderr
    assert own_broker.stop() == 0
    own_broker.start()
    assert levels()["root"] == "INFO" and levels()["openraft"] == "OFF"
    assert own_broker.stop() == 0
