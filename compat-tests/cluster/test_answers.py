"""The responses of single nodes of a cluster, without a client library that could hide them."""

import struct
import threading
import time

import pytest
from differential.wire import Connection

NONE, NOT_COORDINATOR = 0, 16
UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER = 3, 6
FEATURES = [
    "metadata.version",
    "kraft.version",
    "eligible.leader.replicas.version",
    "group.version",
    "share.version",
    "streams.version",
    "transaction.version",
]


@pytest.fixture
def ask(cluster):
    """Sends one request to one node: `ask(2, "Metadata", 1, {...})`."""

    def call(node, api, version, body):
        connection = Connection(cluster[node].port, "answers")
        try:
            return connection.request(api, version, body)
        finally:
            connection.close()

    return call


@pytest.mark.parametrize("version", [1, 2, 7, 8])
def test_offset_fetch_from_other_broker(cluster, ask, version):
    """A broker that is not the coordinator returns NOT_COORDINATOR in the field of each version."""

    def coordinator():
        found = ask(1, "FindCoordinator", 3, {"key": "elsewhere", "keyType": 0})
        return found["nodeId"] if found["errorCode"] == NONE else None

    cluster.wait_until("the group has a coordinator", coordinator)
    topics = [{"name": "any", "partitionIndexes": [0, 3]}]
    body = {"groupId": "elsewhere", "topics": topics, "requireStable": False}
    if version >= 8:
        body = {"groups": [{"groupId": "elsewhere", "topics": topics}], "requireStable": False}

    def told():
        found = {}
        for node in cluster.nodes:
            answer = ask(node, "OffsetFetch", version, body)
            group = answer["groups"][0] if version >= 8 else answer
            partitions = [it for topic in group["topics"] for it in topic["partitions"]]
            found[node] = [group.get("errorCode", NONE)] + [
                (it["partitionIndex"], it["committedOffset"], it["errorCode"]) for it in partitions
            ]
        return found

    nothing = [NONE, (0, -1, NONE), (3, -1, NONE)]
    cluster.wait_until("the group is loaded", lambda: told()[coordinator()] == nothing)
    in_each = [NONE, (0, -1, NOT_COORDINATOR), (3, -1, NOT_COORDINATOR)]
    elsewhere = in_each if version < 2 else [NOT_COORDINATOR]
    assert list(told().values()).count(elsewhere) == 2


def test_producers_of_every_replica(cluster, run, ask, topic):
    """Leader and follower describe the same producers. Nodes without a replica refuse (KIP-664)."""
    run(f"kafka-topics --create --topic {topic} --partitions 1 --replication-factor 2").ok()
    produce = f"kafka-console-producer --topic {topic} --command-property acks=all"
    run(produce, stdin="one\ntwo\n").ok()
    body = {"topics": [{"name": topic, "partitionIndexes": [0, 5]}]}

    def described(node):
        zero, five = ask(node, "DescribeProducers", 0, body)["topics"][0]["partitions"]
        assert five["errorCode"] == UNKNOWN_TOPIC_OR_PARTITION
        return zero["errorCode"], zero["activeProducers"]

    replicas = [node for node in cluster.nodes if described(node)[0] == NONE]
    others = [node for node in cluster.nodes if node not in replicas]
    assert len(replicas) == 2 and cluster.leader(topic) in replicas
    assert [described(node) for node in others] == [(NOT_LEADER_OR_FOLLOWER, [])]
    error, producers = described(cluster.leader(topic))
    assert len(producers) == 1 and producers[0]["lastSequence"] == 1, producers
    for node in replicas:
        assert described(node) == (error, producers)


def test_damaged_batch(cluster, run, ask, topic):
    """A damaged batch in one partition takes neither its log directory nor its leader offline."""
    run(f"kafka-topics --create --topic {topic} --partitions 1 --replication-factor 3").ok()
    produce = f"kafka-console-producer --topic {topic} --command-property acks=all"
    run(f"{produce} --compression-codec gzip", stdin="some lines that compress\n" * 200).ok()
    leader = cluster.leader(topic)
    log = cluster[leader].data / f"{topic}-0" / "00000000000000000000.log"
    with open(log, "r+b") as file:
        size = 12 + struct.unpack(">i", file.read(12)[8:])[0]
        compressed = 61 + 10  # after the batch's header and gzip's
        file.seek(compressed)
        file.write(b"\xa5" * (size - compressed))
    partition = {"partitionIndex": 0, "currentLeaderEpoch": -1, "timestamp": 1}
    body = {
        "replicaId": -1,
        "isolationLevel": 0,
        "topics": [{"name": topic, "partitions": [partition]}],
    }
    answer = ask(leader, "ListOffsets", 7, body)
    assert answer["topics"][0]["partitions"][0]["errorCode"] != NONE
    time.sleep(1)
    assert cluster[leader].is_running and cluster.leader(topic) == leader
    run(produce, stdin="one more\n").ok()
    ends = run(f"kafka-get-offsets --topic {topic}").ok().lines
    assert ends == [f"{topic}:0:201"]


def test_heartbeats_do_not_wait_for_the_controllers_own_broker(new_cluster):
    """The controller answers heartbeats while its own broker applies many new topics."""
    cluster = new_cluster(count=1).start()
    controller = Connection(cluster[1].controller_port, "answers")
    described = Connection(cluster[1].port).request(
        "DescribeCluster", 0, {"includeClusterAuthorizedOperations": False}
    )
    registration = {
        "brokerId": 9,
        "clusterId": described["clusterId"],
        "incarnationId": "6c1bd0de-54f0-4d0c-8f3e-54f2b1a1b7c9",
        "listeners": [
            {"name": "PLAINTEXT", "host": "127.0.0.1", "port": 1, "securityProtocol": 0}
        ],
        "features": [
            {"name": name, "minSupportedVersion": 0, "maxSupportedVersion": 99}
            for name in FEATURES
        ],
        "rack": None,
        "isMigratingZkBroker": False,
        "logDirs": ["a1d2c3b4-0001-4c3d-9e8f-102030405060"],
        "previousBrokerEpoch": -1,
    }
    registered = controller.request("BrokerRegistration", 3, registration)
    assert registered["errorCode"] == NONE, registered
    heartbeat = {
        "brokerId": 9,
        "brokerEpoch": registered["brokerEpoch"],
        "currentMetadataOffset": 0,
        "wantFence": True,
        "wantShutDown": False,
        "offlineLogDirs": [],
    }
    topic = {"name": "mass", "numPartitions": 1500, "replicationFactor": 1}
    topic |= {"assignments": [], "configs": []}
    body = {"topics": [topic], "timeoutMs": 60_000, "validateOnly": False}
    created = []

    def create():
        connection = Connection(cluster[1].port, "answers")
        begun = time.monotonic()
        answer = connection.request("CreateTopics", 5, body)
        created.append((answer["topics"][0]["errorCode"], time.monotonic() - begun))

    creation = threading.Thread(target=create)
    creation.start()
    waits = []
    while creation.is_alive():
        begun = time.monotonic()
        assert controller.request("BrokerHeartbeat", 1, heartbeat)["errorCode"] == NONE
        waits.append(time.monotonic() - begun)
    creation.join()
    ((code, seconds),) = created
    assert code == NONE
    assert max(waits) < seconds / 2, (max(waits), seconds, len(waits))
