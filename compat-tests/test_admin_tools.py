"""Tools that describe one node: versions, features, quorum, log directories, elections."""

import json
import re


def test_broker_api_versions(shell):
    """Every API with its version range. Only the APIs of a single node are compared."""
    printed = shell("kafka-broker-api-versions", transcript=False).ok()
    node = r"^127\.0\.0\.1:\d+ \(id: 1 rack: null isFenced: false\) -> \($"
    assert re.search(node, printed.stdout, re.M), printed.stdout
    ranges = dict(re.findall(r"^\s+(\w+\(\d+\)): (.*?),?$", printed.stdout, re.M))
    shell.note("APIs of a single broker", [f"{api}: {ranges.get(api)}" for api in SINGLE_NODE_APIS])


SINGLE_NODE_APIS = """
Produce(0) Fetch(1) ListOffsets(2) Metadata(3) OffsetCommit(8) OffsetFetch(9) FindCoordinator(10)
JoinGroup(11) Heartbeat(12) LeaveGroup(13) SyncGroup(14) DescribeGroups(15) ListGroups(16)
ApiVersions(18) CreateTopics(19) DeleteTopics(20) DeleteRecords(21) InitProducerId(22)
OffsetForLeaderEpoch(23) DescribeConfigs(32) AlterConfigs(33) DescribeLogDirs(35)
CreatePartitions(37) DeleteGroups(42) IncrementalAlterConfigs(44) OffsetDelete(47)
DescribeQuorum(55) UpdateFeatures(57) DescribeCluster(60) DescribeProducers(61)
ListConfigResources(74) DescribeTopicPartitions(75)
""".split()


def test_cluster(shell):
    shell("kafka-cluster cluster-id")
    shell("kafka-cluster list-endpoints")


def test_features(shell):
    """The feature levels of the metadata. Those of groups and transactions are not compared yet."""
    described = shell("kafka-features describe", transcript=False).ok()
    levels = [line.split("Epoch")[0].strip() for line in described.lines]
    wanted = ("metadata.version", "kraft.version", "eligible.leader.replicas.version")
    shell.note("features", sorted(line for line in levels if line.split()[1] in wanted))


def test_features_refused(shell):
    shell("kafka-features upgrade --feature no.such.feature=1")
    shell("kafka-features upgrade --feature metadata.version=999")
    shell("kafka-features downgrade --feature metadata.version=1")


def test_metadata_quorum(shell):
    status = shell("kafka-metadata-quorum describe --status", transcript=False).ok()
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", status.stdout, re.M))
    assert fields["LeaderId"] == "1"
    assert fields["MaxFollowerLag"] == "0"
    assert int(fields["HighWatermark"]) > 0
    assert re.search(r'"?id"?: 1', fields["CurrentVoters"]), fields
    shell.note("fields of describe --status", list(fields))
    replication = shell("kafka-metadata-quorum describe --replication", transcript=False).ok()
    header, row = (line.split() for line in replication.lines)
    assert (row[0], row[3], row[-1]) == ("1", "0", "Leader")
    shell.note("columns of describe --replication", header)


def test_log_dirs(shell, broker):
    shell("kafka-topics --create --topic measured --partitions 2")
    shell("kafka-console-producer --topic measured", stdin="x" * 1000 + "\n").ok()
    printed = shell("kafka-log-dirs --describe --topic-list measured", transcript=False).ok()
    report = json.loads(printed.lines[-1])
    (described,) = report["brokers"]
    (log_dir,) = described["logDirs"]
    assert (described["broker"], log_dir["logDir"], log_dir["error"]) == (1, str(broker.data), None)
    sizes = {replica["partition"]: replica["size"] for replica in log_dir["partitions"]}
    assert sorted(sizes) == ["measured-0", "measured-1"]
    assert sum(sizes.values()) == sum(
        file.stat().st_size for file in broker.data.glob("measured-*/*.log")
    )
    assert all(r["offsetLag"] == 0 and not r["isFuture"] for r in log_dir["partitions"])


def test_leader_election(shell):
    shell("kafka-topics --create --topic elected")
    shell("kafka-leader-election --election-type preferred --topic elected --partition 0")
    shell("kafka-leader-election --election-type unclean --topic elected --partition 0")


def test_describe_producers(shell):
    shell("kafka-topics --create --topic sequenced")
    shell("kafka-console-producer --topic sequenced", stdin="a\nb\nc\n").ok()
    described = shell("kafka-transactions describe-producers --topic sequenced --partition 0",
                      transcript=False).ok()  # fmt: skip
    header, row = (line.split("\t") for line in described.lines)
    shell.note("columns of describe-producers", [column.strip() for column in header])
    producer_id, epoch, _, last_sequence = (column.strip() for column in row[:4])
    assert int(producer_id) >= 0
    assert (epoch, last_sequence) == ("0", "2")
