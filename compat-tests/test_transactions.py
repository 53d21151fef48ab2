"""Data directories with transactions that move from Apache Kafka to Sordini and back."""

import shutil

import pytest
from harness.broker import KAFKA_KIND, SORDINI_KIND, Broker
from harness.shell import Shell
from harness.transactions import (
    fetches,
    last_offset,
    leave_open,
    read,
    transactional,
    write_pairs,
)

READ = "--from-beginning --timeout-ms 20000"
# For each topic: bytes of a record, and sizes of fetches. "large" has several segments, and some
# fetches end at the first index entry of a segment.
TOPICS = {"small": (1, (1, 300, 1 << 20)), "large": (60_000, (1, 100_000, 1 << 20))}


@pytest.fixture
def on(tool_host):
    """Runs command lines against one broker."""
    return lambda broker: Shell(broker, tool_host, None, record=False)


@pytest.fixture
def two_brokers(kind, tmp_path):
    """A broker of Sordini and one of Apache Kafka, not yet started."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    brokers = {kind: Broker(kind, tmp_path / kind) for kind in (SORDINI_KIND, KAFKA_KIND)}
    yield brokers[SORDINI_KIND], brokers[KAFKA_KIND]
    for broker in brokers.values():
        broker.kill()


def move(source, target):
    assert source.process is None
    shutil.rmtree(target.data, ignore_errors=True)
    shutil.copytree(source.data, target.data)


def check(run, broker, expected):
    """Checks that consumers of both libraries get the committed records, or all if uncommitted."""
    for topic, committed in expected.items():
        assert read(broker.bootstrap, topic) == committed
        everything = read(broker.bootstrap, topic, "read_uncommitted")
        assert len(everything) == 60 + len(committed) - 30
        java = f"kafka-console-consumer --topic {topic} --isolation-level read_committed"
        count = f"--max-messages {len(committed)}"
        assert run(f"{java} {READ} {count}").ok().lines == committed


@pytest.mark.oracle
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_aborted_records_stay_hidden(two_brokers, on, end):
    """Aborted records stay hidden: in Sordini, after kill -9, without indexes, in Kafka again."""
    sordini, kafka = two_brokers
    run = on(kafka.start())
    for topic in TOPICS:
        run(f"kafka-topics --create --topic {topic} --config segment.bytes=1048576").ok()
    expected = {
        topic: write_pairs(kafka.bootstrap, topic, size=size) for topic, (size, _) in TOPICS.items()
    }
    answers = {topic: fetches(kafka, topic, slices) for topic, (_, slices) in TOPICS.items()}
    getattr(kafka, end)()
    indexes = {topic: txn_indexes(kafka, topic) for topic in TOPICS}
    assert len(indexes["large"]) > 1, "the aborted transactions are in several segments"
    move(kafka, sordini)
    run = on(sordini.start())
    for topic, (_, slices) in TOPICS.items():
        assert fetches(sordini, topic, slices) == answers[topic]
    check(run, sordini, expected)
    sordini.kill()
    assert {topic: txn_indexes(sordini, topic) for topic in TOPICS} == indexes
    check(run, sordini.start(), expected)
    sordini.kill()
    for topic in TOPICS:
        for path in (sordini.data / f"{topic}-0").glob("*index"):
            path.unlink()
    check(run, sordini.start(), expected)
    for topic, (_, slices) in TOPICS.items():
        assert fetches(sordini, topic, slices) == answers[topic]
        expected[topic].append("ours")
        run(f"kafka-console-producer --topic {topic}", stdin="ours\n").ok()
    assert sordini.stop() == 0
    assert {topic: txn_indexes(sordini, topic) for topic in TOPICS} == indexes
    for topic, files in indexes.items():
        paths = [str(sordini.data / f"{topic}-0" / name) for name in files]
        dumped = run(f"kafka-dump-log --files {','.join(paths)}").ok()
        assert dumped.stdout.count("producerId:") == 3, dumped.stdout
    move(sordini, kafka)
    check(on(kafka.start()), kafka, expected)


def txn_indexes(broker, topic):
    files = (broker.data / f"{topic}-0").glob("*.txnindex")
    return {path.name: path.read_bytes() for path in sorted(files) if path.stat().st_size > 0}


def ends(broker, topic):
    """Returns the end offset and the last stable offset."""
    return [last_offset(broker.bootstrap, topic, level) for level in (0, 1)]


@pytest.mark.oracle
def test_open_transaction_holds_the_last_stable_offset(two_brokers, on):
    sordini, kafka = two_brokers
    on(kafka.start())("kafka-topics --create --topic held").ok()
    committed = write_pairs(kafka.bootstrap, "held", pairs=1)
    producer = leave_open(kafka.bootstrap, "held")
    before = ends(kafka, "held")
    answers = fetches(kafka, "held")
    kafka.kill()
    del producer
    move(kafka, sordini)
    sordini.start()
    assert ends(sordini, "held") == before
    assert before[0] != before[1]
    assert fetches(sordini, "held") == answers
    assert read(sordini.bootstrap, "held") == committed
    warned = [line for line in sordini.log_tail(1000).splitlines() if "open transaction" in line]
    assert len(warned) == 1 and f"first_offset={min(before)}" in warned[0], warned


@pytest.mark.oracle
@pytest.mark.parametrize("first", [KAFKA_KIND, SORDINI_KIND])
def test_open_transaction_is_aborted_by_the_other_broker(two_brokers, on, first):
    """The other broker loads the state of the transaction. Its producer starts again there."""
    source, target = sorted(two_brokers, key=lambda broker: broker.kind != first)
    on(source.start())("kafka-topics --create --topic held").ok()
    committed = write_pairs(source.bootstrap, "held", pairs=1)
    producer = leave_open(source.bootstrap, "held")
    source.kill()
    del producer
    move(source, target)
    run = on(target.start())
    state = run("kafka-transactions describe --transactional-id held-open", transcript=False).ok()
    assert "Ongoing" in state.stdout, state.stdout
    producer = transactional(target.bootstrap, "held-open")
    end, last_stable = ends(target, "held")
    assert end == last_stable
    producer.begin_transaction()
    producer.produce("held", "after")
    producer.commit_transaction(60)
    assert read(target.bootstrap, "held") == [*committed, "after"]
