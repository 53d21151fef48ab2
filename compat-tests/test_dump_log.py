"""kafka-dump-log on the broker's files: segments, indexes, snapshots, internal topics, metadata."""

import re

import pytest
from harness.broker import Broker
from harness.shell import Shell

LOG = "00000000000000000000.log"


@pytest.fixture(scope="module")
def written(kind, tool_host, tmp_path_factory):
    """The directory of a stopped broker that had some traffic."""
    broker = Broker(kind, tmp_path_factory.mktemp("written"), log_index_interval_bytes=200).start()
    write = Shell(broker, tool_host, None, record=False)
    write("kafka-topics --create --topic dumped").ok()
    write("kafka-topics --create --topic zipped").ok()
    write("kafka-topics --create --topic rolled --config segment.bytes=1048576").ok()
    for topic in ("dumped", "zipped"):
        for line in ("h1:a\tk1\tfirst\n", "h1:b\tk2\tsecond\nNULL\tNULL\tthird\n"):
            producer = (
                f"kafka-console-producer --topic {topic} --reader-property parse.key=true"
                " --reader-property parse.headers=true --reader-property null.marker=NULL"
                f" --compression-codec {'gzip' if topic == 'zipped' else 'none'}"
            )
            write(producer, stdin=line).ok()
    rolling = "kafka-producer-perf-test --topic rolled --num-records 3000 --record-size 1000"
    write(f"{rolling} --throughput -1").ok()
    consumer = "kafka-console-consumer --topic dumped --group dump-group --from-beginning"
    write(f"{consumer} --max-messages 2 --timeout-ms 20000").ok()
    write("kafka-configs --alter --entity-type topics --entity-name dumped"
          " --add-config retention.ms=123456").ok()  # fmt: skip
    write("kafka-topics --create --topic gone").ok()
    write("kafka-topics --delete --topic gone").ok()
    broker.stop()
    return broker


@pytest.mark.parametrize("topic", ["dumped", "zipped"])
def test_segment(dump, topic):
    dump(f"{topic}-0/{LOG}")
    dump(f"{topic}-0/{LOG}", "--deep-iteration --print-data-log")


def test_indexes_of_rolled_segments(dump, written):
    """The entries of each index agree with its segment and have the configured density."""
    logs = sorted((written.data / "rolled-0").glob("*.log"))
    assert len(logs) >= 3, logs
    for log in logs:
        for index in (log.with_suffix(".index"), log.with_suffix(".timeindex")):
            path = index.relative_to(written.data)
            sane = dump(path, "--index-sanity-check", transcript=False).ok()
            assert "passed sanity check" in sane.stdout, sane.stdout
            verified = dump(path, "--verify-index-only", transcript=False).ok()
            assert "Found" not in verified.stdout, verified.stdout
        entries = dump(log.with_suffix(".index").relative_to(written.data), transcript=False).ok()
        assert entries.stdout.count("position:") > 10, entries.stdout


def test_producer_snapshot(dump, written):
    """The state of idempotent producers after a controlled shutdown."""
    (snapshot,) = (written.data / "dumped-0").glob("*.snapshot")
    assert snapshot.name == "00000000000000000003.snapshot"
    dumped = dump(snapshot.relative_to(written.data), transcript=False).ok()
    rows = [line for line in dumped.lines if line.startswith("producerId:")]
    assert len(rows) == 2, dumped.stdout
    assert all("producerEpoch: 0" in row and "currentTxnFirstOffset" in row for row in rows)
    assert sorted(re.search(r"lastOffset: (\d+)", row)[1] for row in rows) == ["0", "2"]


def test_committed_offsets(dump, written):
    """Kafka's decoder reads the records of __consumer_offsets."""
    (log,) = (log for log in written.data.glob(f"__consumer_offsets-*/{LOG}") if log.stat().st_size)
    decoded = dump(log.relative_to(written.data), "--offsets-decoder", transcript=False).ok()
    records = [line for line in decoded.lines if line.startswith("| offset:")]
    commits = [r for r in records if '"topic":"dumped"' in r]
    assert commits, decoded.stdout
    assert '"group":"dump-group"' in commits[-1] and '"partition":0' in commits[-1]
    assert '"offset":2' in commits[-1] and '"metadata":""' in commits[-1]
    groups = [r for r in records if '"protocolType":"consumer"' in r]
    assert any('"clientId":"console-consumer"' in r for r in groups), decoded.stdout
    assert '"members":[]' in groups[-1], "the member has left"


def test_metadata_log(dump, written):
    """Kafka's decoder reads the records of __cluster_metadata-0."""
    path = f"__cluster_metadata-0/{LOG}"
    decoded = dump(path, "--cluster-metadata-decoder", transcript=False).ok()
    for kind in ("REGISTER_BROKER_RECORD", "FEATURE_LEVEL_RECORD", "TOPIC_RECORD", "PARTITION_RECORD",
                 "CONFIG_RECORD", "REMOVE_TOPIC_RECORD", "PRODUCER_IDS_RECORD"):  # fmt: skip
        assert f'"type":"{kind}"' in decoded.stdout, f"no {kind}"
    assert '"name":"dumped"' in decoded.stdout
    assert '"value":"123456"' in decoded.stdout
