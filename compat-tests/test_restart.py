"""State after a controlled shutdown, a kill -9, and a move between Apache Kafka and Sordini."""

import shutil
import threading

import pytest
from differential.wire import Connection
from harness.broker import KAFKA_KIND, SORDINI_KIND, Broker
from harness.shell import Shell

READ = "--from-beginning --timeout-ms 20000"


@pytest.fixture
def on(tool_host):
    """Runs command lines against one broker."""
    return lambda broker: Shell(broker, tool_host, None, record=False)


def fill(run):
    """Creates topics, records in several codecs, a config and a group, for `check`."""
    run("kafka-topics --create --topic kept --partitions 2 --config retention.ms=86400000").ok()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        run("kafka-topics --create --topic kept-" + codec).ok()
        lines = "".join(f"{codec}-{n}\n" for n in range(100))
        run(f"kafka-console-producer --topic kept-{codec} --compression-codec {codec}", stdin=lines).ok()
    consumer = "kafka-console-consumer --topic kept-none --group keeper --from-beginning"
    run(f"{consumer} --max-messages 40 --timeout-ms 20000").ok()


def check(run):
    """Checks that everything from `fill` is there, and that clients can continue from it."""
    described = run("kafka-topics --describe --topic kept").ok()
    assert "PartitionCount: 2" in described.stdout and "retention.ms=86400000" in described.stdout
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        read = run(f"kafka-console-consumer --topic kept-{codec} {READ} --max-messages 100").ok()
        assert read.lines == [f"{codec}-{n}" for n in range(100)]
    group = run("kafka-consumer-groups --describe --group keeper").ok()
    row = next(line.split() for line in group.lines if line.startswith("keeper"))
    assert row[3:6] == ["40", "100", "60"], group.stdout
    rest = run(f"kafka-console-consumer --topic kept-none --group keeper {READ} --max-messages 60")
    assert rest.ok().lines == [f"none-{n}" for n in range(40, 100)]
    run("kafka-console-producer --topic kept-none", stdin="more\n").ok()
    assert run("kafka-get-offsets --topic kept-none").ok().lines == ["kept-none:0:101"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart(own_broker, on, end):
    run = on(own_broker.start())
    fill(run)
    code = getattr(own_broker, end)()
    if end == "stop":
        assert code in (0, 143), "the exit code of a controlled stop; a JVM's is 143"
    own_broker.start()
    check(run)


def test_kill_while_producing(own_broker, on):
    """Every record that was acknowledged before a kill -9 is there after it, once and in order."""
    run = on(own_broker.start())
    run("kafka-topics --create --topic hit").ok()
    producer = run.start(
        "kafka-verifiable-producer --topic hit --throughput 3000 --acks -1 --max-messages 20000"
    )
    acknowledged = set()
    threading.Event().wait(4)
    own_broker.kill()
    for line in producer.peek().stdout.splitlines():
        if '"name":"producer_send_success"' in line:
            acknowledged.add(int(line.split('"value":"')[1].split('"')[0]))
    own_broker.start()
    assert len(acknowledged) > 100, "it was killed under load"
    producer.wait(timeout=90)
    end = int(run("kafka-get-offsets --topic hit").ok().stdout.split(":")[2])
    read = run(f"kafka-console-consumer --topic hit {READ} --max-messages {end}").ok()
    values = [int(line) for line in read.lines]
    assert values == sorted(values), "reordered"
    assert len(values) == len(set(values)), "doubled"
    assert acknowledged <= set(values), f"lost: {sorted(acknowledged - set(values))[:10]}"


def copy_data(source, target):
    """Copies the data directory of the stopped source to the target."""
    assert source.process is None
    shutil.copytree(source.data, target.data)


@pytest.fixture
def two_brokers(tmp_path):
    """A broker of Sordini and one of Apache Kafka, not yet started."""
    brokers = {kind: Broker(kind, tmp_path / kind) for kind in (SORDINI_KIND, KAFKA_KIND)}
    yield brokers[SORDINI_KIND], brokers[KAFKA_KIND]
    for broker in brokers.values():
        broker.kill()


@pytest.mark.oracle
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_adopts_a_directory_of_apache_kafka(two_brokers, on, kind, end):
    """Sordini starts on a directory of Apache Kafka, after a controlled shutdown or a crash."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    sordini, kafka = two_brokers
    fill(on(kafka.start()))
    getattr(kafka, end)()
    copy_data(kafka, sordini)
    check(on(sordini.start()))


@pytest.mark.oracle
def test_apache_kafka_starts_on_our_directory(two_brokers, on, kind):
    """Apache Kafka starts on a whole directory of Sordini, including the metadata log."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    sordini, kafka = two_brokers
    fill(on(sordini.start()))
    assert sordini.stop() == 0
    copy_data(sordini, kafka)
    check(on(kafka.start()))


@pytest.mark.oracle
def test_apache_kafka_reads_our_partitions(two_brokers, on, kind):
    """Apache Kafka reads partition directories of Sordini in place of its own ones."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    sordini, kafka = two_brokers
    fill(on(sordini.start()))
    assert sordini.stop() == 0
    run = on(kafka.start())
    for codec in ("none", "zstd"):
        run(f"kafka-topics --create --topic kept-{codec}").ok()
    kafka.stop()
    for codec in ("none", "zstd"):
        theirs, ours = (broker.data / f"kept-{codec}-0" for broker in (kafka, sordini))
        identity = (theirs / "partition.metadata").read_text()
        shutil.rmtree(theirs)
        shutil.copytree(ours, theirs)
        (theirs / "partition.metadata").write_text(identity)
    kafka.start()
    for codec in ("none", "zstd"):
        read = run(f"kafka-console-consumer --topic kept-{codec} {READ} --max-messages 100").ok()
        assert read.lines == [f"{codec}-{n}" for n in range(100)]


def ask(broker, api, version, body):
    """Sends one request on a new connection. Returns the response."""
    connection = Connection(broker.port)
    try:
        return connection.request(api, version, body)
    finally:
        connection.close()


@pytest.mark.oracle
def test_keeps_groups_of_the_consumer_protocol(two_brokers, on, kind):
    """Sordini and Kafka continue each other's consumer group (KIP-848), and Sordini keeps quotas and
    SCRAM credentials intact for Kafka."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    sordini, kafka = two_brokers
    run = on(kafka.start())
    run("kafka-topics --create --topic read").ok()
    run("kafka-console-producer --topic read", stdin="".join(f"{n}\n" for n in range(10))).ok()
    consume = "kafka-console-consumer --topic read --group modern --command-property"
    modern = f"{consume} group.protocol=consumer {READ}"
    run(f"{modern} --max-messages 4").ok()
    alter = "kafka-configs --alter --entity-type users --entity-name reader --add-config"
    run(f"{alter} consumer_byte_rate=1024").ok()
    run(f"{alter} SCRAM-SHA-256=[iterations=4096,password=any]").ok()
    kafka.stop()
    copy_data(kafka, sordini)

    run = on(sordini.start())
    listed = run("kafka-groups --list").ok()
    row = next(line.split() for line in listed.lines if line.startswith("modern"))
    assert row == ["modern", "Consumer", "consumer"], listed.stdout
    assert run(f"{modern} --max-messages 2").ok().lines == ["4", "5"]
    message = "Group modern is not a classic group."
    described = ask(sordini, "DescribeGroups", 6, {"groups": ["modern"]})["groups"][0]
    assert described["errorMessage"] == message
    users = run("kafka-configs --describe --entity-type users --entity-name reader").ok()
    assert "consumer_byte_rate=1024.0" in users.stdout, users.stdout
    assert "SCRAM-SHA-256=iterations=4096" in users.stdout, users.stdout
    assert sordini.stop() == 0
    shutil.rmtree(kafka.data)
    copy_data(sordini, kafka)

    run = on(kafka.start())
    assert run(f"{modern} --max-messages 4").ok().lines == [str(n) for n in range(6, 10)]
    described = run("kafka-consumer-groups --describe --group modern --state").ok()
    assert "Empty" in described.stdout
