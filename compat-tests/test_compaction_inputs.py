"""Compaction of unusual records, beside damaged files, and on disks that are full or fail."""

import gzip
import shutil
import time

import pytest
import zstandard
from differential import records
from differential.wire import Connection
from harness import wire
from harness.broker import SORDINI_KIND, Broker
from harness.log_lines import LogLines
from harness.segments import batches
from harness.system_calls import can_inject, injected
from harness.topics import read_to_end, set_configs
from test_compaction import (
    CHECKPOINT,
    checkpoint,
    compact,
    create,
    directory_of,
    produce,
    read,
    roll,
    wait_until,
    without_roll,
)

ZSTD = 4
INT64_MAX = (1 << 63) - 1
LARGE = {
    "internal_segment_bytes": str(16 << 20),
    "max_message_bytes": str(8 << 20),
    "delete_retention_ms": "1000",
}
IN_LARGE_BATCH = 100_000
# Everything of a record before its key of 8 bytes, for each place in a batch, and everything after.
BEFORE_KEY = [
    records.varint(len(records.varint(delta)) + 14) + b"\0\0" + records.varint(delta) + b"\x10"
    for delta in range(IN_LARGE_BATCH)
]
AFTER_KEY = b"\x02v\0"
# Room for 78,643 keys.
DEDUPE_BYTES = 2 << 20
# The longest compressed batch that is decompressed as a whole.
DECOMPRESSED_MAX = 128 << 20


@pytest.fixture(scope="module")
def cleaning(kind, tmp_path_factory):
    """A broker whose cleaner hardly rests, with two log directories."""
    broker = Broker(
        kind,
        tmp_path_factory.mktemp("cleaning"),
        log_dirs="{dir}/data,{dir}/other",
        log_cleaner_backoff_ms=100,
        log_cleaner_dedupe_buffer_size=DEDUPE_BYTES,
        # Smaller than many batches.
        log_cleaner_io_buffer_size=16 << 10,
        log_segment_delete_delay_ms=500,
    ).start()
    yield broker
    broker.kill()


def send(broker, topic, *built):
    """Appends batches as they are."""
    connection = Connection(broker.port)
    for batch in built:
        partition = {"index": 0, "records": batch}
        body = {
            "acks": -1,
            "timeoutMs": 10_000,
            "topicData": [{"name": topic, "partitionData": [partition]}],
        }
        (response,) = connection.request("Produce", 9, body)["responses"]
        (partition,) = response["partitionResponses"]
        assert partition["errorCode"] == 0, partition
    connection.close()


def large_batch(keys):
    """A compressed batch with a record for each of 100,000 keys of 8 bytes."""
    body = b"".join([before + key + AFTER_KEY for before, key in zip(BEFORE_KEY, keys)])
    now = int(time.time() * 1000)
    head = {"base_timestamp": now, "max_timestamp": now, "attributes": records.GZIP}
    count = {"count": IN_LARGE_BATCH, "last_offset_delta": IN_LARGE_BATCH - 1}
    payload = gzip.compress(body, compresslevel=1)
    return records.batch([], payload=payload, compress=False, **head, **count)


def compact_large(broker, topic):
    """Closes the last segment, however large it may get, and waits until it is compacted."""
    set_configs(broker, topic, {"internal.segment.bytes": "2000", "min.cleanable.dirty.ratio": "0"})
    compact(broker, topic)


def keys_and_offsets(broker, topic):
    """Reads all records. Faster than `read`."""
    return [(it.key(), it.offset()) for it in read_to_end(broker, [(topic, 0)])]


def test_empty_key_and_the_largest_key_are_keys(cleaning):
    create(cleaning, "lengths", **LARGE)
    key = b"k" * 1_000_000
    first, last = (records.batch([value], keys=[key]) for value in (b"1", b"2"))
    set_configs(cleaning, "lengths", {"max.message.bytes": str(len(first))})
    send(cleaning, "lengths", first, records.batch([b"1", b"2"], keys=[b"", b"other"]))
    send(cleaning, "lengths", last, records.batch([b"3"], keys=[b""]))
    compact_large(cleaning, "lengths")
    kept = without_roll(read(cleaning, "lengths"))
    assert kept == {2: ("other", "2"), 3: (key.decode(), "2"), 4: ("", "3")}


def test_one_key_a_million_times_is_one_record(cleaning):
    create(cleaning, "same", **LARGE)
    send(cleaning, "same", *[large_batch([b"same-key"] * IN_LARGE_BATCH)] * 10)
    compact_large(cleaning, "same")
    assert without_roll(read(cleaning, "same")) == {999_999: ("same-key", "v")}


def test_more_keys_than_a_round_has_room_for_stay(kind, cleaning):
    create(cleaning, "distinct", **LARGE)
    lines = LogLines(cleaning.dir / "broker.log")
    keys = [b"%08d" % n for n in range(2 * IN_LARGE_BATCH)]
    for first in range(0, len(keys), IN_LARGE_BATCH):
        send(cleaning, "distinct", large_batch(keys[first : first + IN_LARGE_BATCH]))
    again = keys[:IN_LARGE_BATCH]
    send(cleaning, "distinct", large_batch(again))
    compact_large(cleaning, "distinct")
    found = [it for it in keys_and_offsets(cleaning, "distinct") if it[0] != b"roll"]
    expected = list(zip(keys, range(len(keys))))[IN_LARGE_BATCH:]
    assert found == expected + list(zip(again, range(len(keys), len(keys) + len(again))))
    if kind == SORDINI_KIND:
        assert len(lines.with_text("log compacted", partition="distinct-0")) >= 3


def test_a_log_of_tombstones_becomes_empty(cleaning):
    create(cleaning, "tombstones", delete_retention_ms="1000")
    produce(cleaning, "tombstones", [(f"k{n}", None) for n in range(200)])
    compact(cleaning, "tombstones")
    assert len(without_roll(read(cleaning, "tombstones"))) == 200
    time.sleep(1.5)
    compact(cleaning, "tombstones")
    assert without_roll(read(cleaning, "tombstones")) == {}
    produce(cleaning, "tombstones", [("k0", "1")])
    assert without_roll(read(cleaning, "tombstones")) == {204: ("k0", "1")}


def test_any_timestamps_are_kept(cleaning):
    """Deltas are relative to the delete horizon once there is one."""
    create(cleaning, "stamped", message_timestamp_after_max_ms=str(INT64_MAX), **LARGE)
    times = [-1, 0, int(time.time() * 1000) + 86_400_000, INT64_MAX - 1, INT64_MAX]
    for time_ms in times:
        keys = [b"replaced", b"key %d" % time_ms, b"deleted %d" % time_ms]
        built = records.batch([b"1", b"1", None], [time_ms] * 3, keys=keys)
        send(cleaning, "stamped", built)
    compact_large(cleaning, "stamped")
    kept = [it for it in stamps(cleaning, "stamped") if it[0] != b"roll"]
    assert kept == [
        it
        for time_ms in times
        for it in (
            [(b"replaced", time_ms)] * (time_ms == INT64_MAX)
            + [(b"key %d" % time_ms, time_ms), (b"deleted %d" % time_ms, time_ms)]
        )
    ]
    time.sleep(1.5)
    compact(cleaning, "stamped")
    left = [it for it in stamps(cleaning, "stamped") if it[0] != b"roll"]
    assert left == [it for it in kept if not it[0].startswith(b"deleted")]


def stamps(broker, topic):
    """Returns the key and timestamp of each record in the segment files."""
    logs = sorted((broker.dir / directory_of(broker, topic) / f"{topic}-0").glob("*.log"))
    return [
        (record.key, record.timestamp)
        for log in logs
        for batch in batches(log.read_bytes())
        for record in batch.records
    ]


def test_batch_that_expands_too_much_stays(kind, cleaning):
    if kind != SORDINI_KIND:
        pytest.skip("Apache Kafka decompresses records of any size")
    create(cleaning, "bomb", **LARGE)
    value = bytes(DECOMPRESSED_MAX + 1)
    payload = zstandard.compress(records.record(0, 0, value, b"bomb"))
    del value
    bomb = records.batch([], payload=payload, attributes=ZSTD, count=1, last_offset_delta=0)
    small = [records.batch([value], keys=[b"other"]) for value in (b"1", b"2")]
    before = peak_memory_mib(cleaning)
    send(cleaning, "bomb", bomb, *small, bomb, *small)
    compact_large(cleaning, "bomb")
    folder = cleaning.dir / directory_of(cleaning, "bomb") / "bomb-0"
    kept = (folder / f"{0:020}.log").read_bytes()
    crc_and_rest = bomb[17:]
    assert kept.count(crc_and_rest) == 2
    assert records.describe(kept.replace(crc_and_rest, b""))[-1] is not None
    assert peak_memory_mib(cleaning) - before < 32 + DECOMPRESSED_MAX / 2**20


def peak_memory_mib(broker):
    status = open(f"/proc/{broker.process.pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


DAMAGED = {"cut": "0\n2\ndamaged 0 1\n", "other version": "1\n1\ndamaged 0 1\n", "zeros": "\0\0\0"}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_checkpoint_is_replaced(kind, cleaning, damage):
    if kind != SORDINI_KIND:
        pytest.skip("Apache Kafka takes the log directory offline")
    topic = f"damaged-{damage.replace(' ', '-')}"
    create(cleaning, topic)
    produce(cleaning, topic, [("a", "1"), ("a", "2")])
    compact(cleaning, topic)
    where = directory_of(cleaning, topic)
    cleaned = checkpoint(cleaning, topic, where)
    cleaning.stop()
    (cleaning.dir / where / CHECKPOINT).write_text(DAMAGED[damage])
    lines = LogLines(cleaning.dir / "broker.log")
    cleaning.start()
    assert lines.with_text("checkpoint is damaged and not used")
    wait_until(lambda: checkpoint(cleaning, topic, where) == cleaned, "not compacted again")
    assert without_roll(read(cleaning, topic)) == {1: ("a", "2")}


def leader(broker, topic):
    return wire.metadata(broker.address, [topic]).topics[topic][0].leader


def test_unknown_partitions_leave_the_checkpoint(cleaning):
    create(cleaning, "known")
    produce(cleaning, "known", [("a", "1"), ("a", "2")])
    compact(cleaning, "known")
    where = directory_of(cleaning, "known")
    cleaning.stop()
    file = cleaning.dir / where / CHECKPOINT
    version, count, *entries = file.read_text().splitlines()
    entries += ["unknown 0 7", "known 3 7"]
    file.write_text("\n".join([version, str(len(entries)), *entries, ""]))
    cleaning.start()
    compact(cleaning, "known")
    assert checkpoint(cleaning, "unknown", where) is None
    assert "known 3 " not in file.read_text()


def test_failing_disk_takes_its_directory_offline(cleaning):
    topics = {}
    while topics.keys() != {"data", "other"}:
        topic = f"failing-{len(topics)}"
        create(cleaning, topic)
        produce(cleaning, topic, [("a", "1"), ("a", "2")])
        compact(cleaning, topic)
        topics[directory_of(cleaning, topic)] = topic
    in_the_way = cleaning.dir / "other" / f"{topics['other']}-0" / f"{0:020}.log.cleaned"
    (in_the_way / "not empty").mkdir(parents=True)
    # Closes the segment with the last record of `compact`.
    produce(cleaning, topics["other"], [("roll", "r" * 1500)])
    wait_until(lambda: leader(cleaning, topics["other"]) == -1, "the directory is online")
    produce(cleaning, topics["data"], [("a", "3")])
    compact(cleaning, topics["data"])
    assert list(without_roll(read(cleaning, topics["data"])).values()) == [("a", "3")]
    cleaning.stop()
    shutil.rmtree(in_the_way)
    cleaning.start()
    compact(cleaning, topics["other"])
    assert without_roll(read(cleaning, topics["other"])) == {1: ("a", "2")}


def test_full_disk_gives_a_round_up(kind, cleaning):
    if kind != SORDINI_KIND or not can_inject():
        pytest.skip("needs strace, root, and a process that is no JVM")
    lines = LogLines(cleaning.dir / "broker.log")
    create(cleaning, "full")
    produce(cleaning, "full", [("a", "1"), ("b", "1"), ("a", "2")])
    folder = cleaning.dir / directory_of(cleaning, "full") / "full-0"
    path = folder / f"{0:020}.log.cleaned"
    with injected(cleaning, path, "pwrite64,pwritev,pwritev2", "error=ENOSPC"):
        roll(cleaning, "full")
        wait_until(lambda: lines.with_text("compaction failed", partition="full-0"), lines.all())
        assert not list(folder.glob("*.cleaned"))
        assert without_roll(read(cleaning, "full")).keys() == {0, 1, 2}
        produce(cleaning, "full", [("b", "2")])
    # The cleaner would wait for some seconds before it tries again.
    cleaning.kill()
    cleaning.start()
    compact(cleaning, "full")
    assert list(without_roll(read(cleaning, "full")).values()) == [("a", "2"), ("b", "2")]
