"""Log compaction under stock tools and clients: what stays, when it runs, what survives a restart."""

import re
import time

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import SORDINI_KIND, Broker
from harness.log_lines import LogLines
from harness.shell import Shell
from harness.topics import read_to_end
from test_log_dirs import put
from test_metrics import eventually

TIMEOUT_S = 30
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
CHECKPOINT = "cleaner-offset-checkpoint"
# Small segments, compacted as soon as they are closed.
COMPACTED = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "2000",
    "min.cleanable.dirty.ratio": "0.01",
}
CONFIGS = "kafka-configs --alter --entity-type topics --entity-name"


@pytest.fixture
def cleaning(kind, tmp_path):
    """A broker whose cleaner hardly rests, with two log directories."""
    broker = Broker(
        kind,
        tmp_path,
        log_dirs="{dir}/data,{dir}/other",
        log_cleaner_backoff_ms=100,
        log_cleaner_dedupe_buffer_size=8 << 20,
        offsets_topic_num_partitions=1,
        offsets_topic_segment_bytes=1 << 20,
        log_segment_delete_delay_ms=500,
    ).start()
    yield broker
    broker.kill()


@pytest.fixture
def run(cleaning, tool_host):
    return Shell(cleaning, tool_host, None, record=False)


def create(broker, topic, **changed):
    config = COMPACTED | {name.replace("_", "."): value for name, value in changed.items()}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(TIMEOUT_S)

    def is_led():
        try:
            return end(broker, topic) == 0
        except KafkaException:
            return False

    wait_until(is_led, f"{topic} has no leader")


def produce(broker, topic, records, codec="none"):
    """Appends (key, value) pairs in batches of at most 20 records."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "compression.type": codec,
            "batch.num.messages": 20,
            "linger.ms": 50,
        }
    )
    errors = []
    for key, value in records:
        note = lambda error, _: errors.append(error)  # noqa: E731
        producer.produce(topic, key=key, value=value, partition=0, on_delivery=note)
    assert producer.flush(TIMEOUT_S) == 0
    assert not any(errors), errors


def roll(broker, topic):
    """Closes the segment that has the last records: two records do not fit a segment."""
    for _ in range(2):
        produce(broker, topic, [("roll", "r" * 1500)])


def read(broker, topic):
    """Returns all records: (key, value) by offset."""
    text = lambda part: None if part is None else part.decode()  # noqa: E731
    messages = read_to_end(broker, [(topic, 0)])
    return {it.offset(): (text(it.key()), text(it.value())) for it in messages}


def end(broker, topic):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader"})
    _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), TIMEOUT_S)
    consumer.close()
    return high


def checkpoint(broker, topic, directory="data"):
    """Returns the first dirty offset in the checkpoint of a log directory, or None."""
    file = broker.dir / directory / CHECKPOINT
    entries = re.findall(r"^(\S+) 0 (\d+)$", file.read_text(), re.M) if file.exists() else []
    return {name: int(offset) for name, offset in entries}.get(topic)


def directory_of(broker, topic):
    (found,) = [name for name in ("data", "other") if (broker.dir / name / f"{topic}-0").exists()]
    return found


def wait_until(is_true, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def compact(broker, topic):
    """Closes the last segment and waits until everything before it is compacted."""
    # The last record of `roll` is alone in the active segment.
    target = end(broker, topic) + 1
    roll(broker, topic)
    where = directory_of(broker, topic)
    is_clean = lambda: (checkpoint(broker, topic, where) or 0) >= target  # noqa: E731
    wait_until(is_clean, f"not compacted to {target}")


def without_roll(records):
    return {offset: pair for offset, pair in records.items() if pair[0] != "roll"}


def last_of_each_key(records):
    last = {}
    for offset, (key, value) in sorted(records.items()):
        last[key] = (offset, value)
    return {offset: (key, value) for key, (offset, value) in last.items()}


@pytest.mark.parametrize("codec", CODECS)
def test_last_value_of_each_key_stays_at_its_offset(cleaning, run, codec):
    create(cleaning, "kept")
    produced = {}
    for round_ in range(3):
        pairs = [(f"k{n % 7}", f"{round_}-{n}-{'v' * 50}") for n in range(200)]
        first = end(cleaning, "kept")
        produce(cleaning, "kept", pairs, codec)
        produced |= {first + n: pair for n, pair in enumerate(pairs)}
        compact(cleaning, "kept")
        expected = last_of_each_key(produced)
        assert without_roll(read(cleaning, "kept")) == expected
    shown = run(
        "kafka-console-consumer --topic kept --from-beginning --timeout-ms 5000"
        " --formatter-property print.key=true --formatter-property key.separator=="
    )
    lines = [line for line in shown.lines if line.startswith("k")]
    assert lines == [f"{key}={value}" for _, (key, value) in sorted(expected.items())]


def test_tombstones_go_after_their_retention(cleaning):
    create(cleaning, "deleted", delete_retention_ms="1000")
    produce(cleaning, "deleted", [("gone", "1"), ("here", "1"), ("gone", None)])
    compact(cleaning, "deleted")
    values = dict(without_roll(read(cleaning, "deleted")).values())
    assert values == {"gone": None, "here": "1"}, "the first round keeps the tombstone"
    time.sleep(1.5)
    compact(cleaning, "deleted")
    assert dict(without_roll(read(cleaning, "deleted")).values()) == {"here": "1"}


def test_records_without_key_go_once_the_policy_is_compact(kind, cleaning, run):
    create(cleaning, "switched", cleanup_policy="delete")
    produce(cleaning, "switched", [(None, "1"), ("a", "1"), (None, "2"), ("a", "2")])
    roll(cleaning, "switched")
    produced = read(cleaning, "switched")
    time.sleep(1)
    assert read(cleaning, "switched") == produced, "nothing is compacted yet"
    lines = LogLines(cleaning.dir / "broker.log")
    run(f"{CONFIGS} switched --add-config cleanup.policy=compact").ok()
    # Producers must give a key from now on.
    compact(cleaning, "switched")
    assert without_roll(read(cleaning, "switched")) == {3: ("a", "2")}
    if kind == SORDINI_KIND:
        wait_until(
            lambda: lines.with_text("compaction has dropped records", messages=2), lines.all()
        )
    run(f"{CONFIGS} switched --add-config cleanup.policy=delete").ok()
    produce(cleaning, "switched", [("a", "3"), (None, "4")])
    roll(cleaning, "switched")
    time.sleep(1)
    assert list(without_roll(read(cleaning, "switched")).values())[-2:] == [("a", "3"), (None, "4")]


def test_committed_offsets_stop_growing(cleaning):
    create(cleaning, "consumed", cleanup_policy="delete")
    consumer = Consumer({"bootstrap.servers": cleaning.bootstrap, "group.id": "committing"})
    wasted = "m" * 4000

    def commit(offset):
        position = TopicPartition("consumed", 0, offset, metadata=wasted)
        consumer.commit(offsets=[position], asynchronous=False)

    produce(cleaning, "consumed", [("a", "1")])
    for offset in range(600):
        commit(offset)
    folder = cleaning.dir / directory_of(cleaning, "__consumer_offsets") / "__consumer_offsets-0"

    def size():
        try:
            return sum(file.stat().st_size for file in folder.glob("*.log"))
        except FileNotFoundError:  # the cleaner has renamed it meanwhile
            return 1 << 30

    wait_until(lambda: size() < 1.3 * (1 << 20), "of 2.4 MB, at most the active segment stays")
    (committed,) = consumer.committed([TopicPartition("consumed", 0)], TIMEOUT_S)
    assert committed.offset == 599
    consumer.close()
    cleaning.stop()
    cleaning.start()
    consumer = Consumer({"bootstrap.servers": cleaning.bootstrap, "group.id": "committing"})
    (committed,) = consumer.committed([TopicPartition("consumed", 0)], TIMEOUT_S)
    assert committed.offset == 599
    consumer.close()


@pytest.mark.parametrize("end_process", [Broker.stop, Broker.kill], ids=["stop", "kill"])
def test_restart_changes_nothing(cleaning, run, end_process):
    create(cleaning, "lasting")
    pairs = [(f"k{n % 7}", f"{n}-{'v' * 50}") for n in range(300)]
    produce(cleaning, "lasting", pairs, "lz4")
    compact(cleaning, "lasting")
    where = directory_of(cleaning, "lasting")
    before = (read(cleaning, "lasting"), end(cleaning, "lasting"))
    cleaned = checkpoint(cleaning, "lasting", where)
    end_process(cleaning)
    for log in (cleaning.dir / where / "lasting-0").glob("*.log"):
        dumped = run(f"kafka-dump-log --files {log} --deep-iteration --print-data-log").ok()
        assert "isvalid: false" not in dumped.stdout
    cleaning.start()
    assert (read(cleaning, "lasting"), end(cleaning, "lasting")) == before
    assert checkpoint(cleaning, "lasting", where) == cleaned
    produce(cleaning, "lasting", [("k0", "new")])
    compact(cleaning, "lasting")
    values = dict(without_roll(read(cleaning, "lasting")).values())
    assert len(values) == 7 and values["k0"] == "new"


def test_move_carries_the_first_dirty_offset(cleaning, run):
    create(cleaning, "moving")
    produce(cleaning, "moving", [(f"k{n % 7}", "v" * 50) for n in range(200)])
    compact(cleaning, "moving")
    source = directory_of(cleaning, "moving")
    target = "other" if source == "data" else "data"
    cleaned = checkpoint(cleaning, "moving", source)
    records = read(cleaning, "moving")
    plan = cleaning.dir / "plan.json"
    place = f'"replicas": [1], "log_dirs": ["{cleaning.dir / target}"]'
    plan.write_text(
        f'{{"version": 1, "partitions": [{{"topic": "moving", "partition": 0, {place}}}]}}'
    )
    put(run, plan)
    is_left = lambda: checkpoint(cleaning, "moving", source) is None  # noqa: E731
    wait_until(is_left, "the former directory still has an entry")
    assert checkpoint(cleaning, "moving", target) >= cleaned
    assert without_roll(read(cleaning, "moving")) == without_roll(records)
    compact(cleaning, "moving")


def test_deleted_topic_leaves_the_checkpoint(cleaning, run):
    create(cleaning, "brief")
    produce(cleaning, "brief", [("a", "1"), ("a", "2")])
    compact(cleaning, "brief")
    where = directory_of(cleaning, "brief")
    run("kafka-topics --delete --topic brief").ok()
    wait_until(lambda: checkpoint(cleaning, "brief", where) is None, "the entry stays")


def test_rounds_are_logged_and_measured(kind, cleaning):
    if kind != SORDINI_KIND:
        pytest.skip("the log lines and metrics are Sordini's own")
    lines = LogLines(cleaning.dir / "broker.log")
    create(cleaning, "measured")
    produce(cleaning, "measured", [("a", "v" * 50)] * 100)
    compact(cleaning, "measured")

    def numbers():
        rounds = lines.with_text("log compacted", partition="measured-0")
        return [dict(re.findall(r"(\w+)=(\S+)", text)) for _, text in rounds]

    def total(what):
        return sum(int(it[f"messages_{what}"]) for it in numbers())

    # The line of a round follows its checkpoint.
    wait_until(lambda: total("read") >= 100, lines.all())
    assert total("kept") < total("read")
    assert all(int(it["bytes_kept"]) <= int(it["bytes_read"]) for it in numbers())
    assert float(numbers()[0]["buffer_utilization_percent"]) >= 0
    name = "kafka_log_cleaner_{}".format
    scrape = eventually(cleaning, lambda it: 0 < (it.get(name("recopy_ratio")) or 0) <= 1)
    assert scrape.get(name("max_clean_seconds")) > 0
    assert scrape.get(name("seconds_since_last_run")) < 10
    assert scrape.get(name("dead_threads")) == 0
    assert 0 <= scrape.get(name("max_dirty_ratio")) <= 1
    for directory in ("data", "other"):
        log_dir = str(cleaning.dir / directory)
        assert scrape.get(name("uncleanable_partitions"), log_dir=log_dir) == 0


def test_throttled_rounds_keep_the_rate(kind, cleaning, run):
    if kind != SORDINI_KIND:
        pytest.skip("the log lines are Sordini's own")
    rate = 400_000
    lines = LogLines(cleaning.dir / "broker.log")
    brokers = "kafka-configs --alter --entity-type brokers --entity-default --add-config"
    run(f"{brokers} log.cleaner.io.max.bytes.per.second={rate},log.cleaner.io.buffer.size=16384").ok()
    wait_until(lambda: lines.with_text("cleaner threads get new settings"), lines.all())
    # Bytes count when they are mapped, read and written. All are dirty at once.
    create(cleaning, "slow", cleanup_policy="delete", internal_segment_bytes=str(1 << 20))
    for n in range(60):
        produce(cleaning, "slow", [(f"k{n}-{m}", "v" * 1000) for m in range(20)])
    run(f"{CONFIGS} slow --add-config cleanup.policy=compact").ok()
    roll_large = [("roll", "r" * 600_000)]
    produce(cleaning, "slow", roll_large)
    produce(cleaning, "slow", roll_large)
    wait_until(lambda: lines.with_text("log compacted", partition="slow-0"), lines.all())
    (_, text) = lines.with_text("log compacted", partition="slow-0")[0]
    numbers = dict(re.findall(r"(\w+)=(\S+)", text))
    moved = sum(int(numbers[name]) for name in ("mapped_bytes", "bytes_read", "bytes_kept"))
    assert moved > 3_000_000
    measured = moved / float(numbers["seconds"])
    # A slow disk may add to the pauses.
    assert 0.75 * rate < measured < 1.1 * rate, text


def test_damaged_batch_stops_only_its_partition(kind, cleaning):
    if kind != SORDINI_KIND:
        pytest.skip("the log lines and metrics are Sordini's own")
    create(cleaning, "damaged")
    create(cleaning, "sound")
    produce(cleaning, "damaged", [("a", "v" * 100)] * 10)
    where = directory_of(cleaning, "damaged")
    log = cleaning.dir / where / "damaged-0" / f"{0:020}.log"
    with log.open("r+b") as file:
        file.seek(80)
        (byte,) = file.read(1)
        file.seek(80)
        file.write(bytes([byte ^ 1]))
    lines = LogLines(cleaning.dir / "broker.log")
    roll(cleaning, "damaged")
    wait_until(lambda: lines.with_text("log cannot be compacted"), lines.all())
    name, log_dir = "kafka_log_cleaner_uncleanable_{}".format, str(cleaning.dir / where)
    eventually(cleaning, lambda it: it.get(name("partitions"), log_dir=log_dir) == 1)
    eventually(cleaning, lambda it: it.get(name("bytes"), log_dir=log_dir) > 1000)
    produce(cleaning, "sound", [("a", "1"), ("a", "2")])
    compact(cleaning, "sound")
    assert without_roll(read(cleaning, "sound")) == {1: ("a", "2")}
    assert len(lines.with_text("log cannot be compacted")) == 1, "it is logged once"


def test_disabled_cleaner_leaves_logs_alone(kind, cleaning):
    cleaning.stop()
    cleaning.settings["log.cleaner.enable"] = "false"
    lines = LogLines(cleaning.dir / "broker.log")
    cleaning.start()
    create(cleaning, "untouched")
    produce(cleaning, "untouched", [("a", "1"), ("a", "2")])
    roll(cleaning, "untouched")
    produced = read(cleaning, "untouched")
    time.sleep(1)
    assert read(cleaning, "untouched") == produced
    if kind == SORDINI_KIND:
        assert lines.with_text("log.cleaner.enable=false is deprecated")
