"""Disks that need two seconds per sync. Commits take longer, and nothing else changes."""

import contextlib
import shutil
import subprocess
import time
import uuid

import pytest
from differential.wire import Connection
from harness.broker import SORDINI_KIND, free_port
from harness.network import is_possible
from test_quorum import FEATURES

DELAY_US = 2_000_000
NONE, REQUEST_TIMED_OUT = 0, 7


@contextlib.contextmanager
def slow_syncs(nodes):
    """Delays each fsync, fdatasync and fallocate of these nodes, with strace."""
    calls = "fsync,fdatasync,fallocate"
    tracers = [
        subprocess.Popen(
            ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(node.process.pid)]
            + ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit={DELAY_US}"],
            stderr=subprocess.PIPE,
        )
        for node in nodes
    ]
    try:
        time.sleep(1)
        for tracer in tracers:
            assert tracer.poll() is None, tracer.stderr.read()
        yield
    finally:
        for tracer in tracers:
            tracer.terminate()
            tracer.wait(timeout=30)


def lines_of(cluster, text):
    logs = (node.log.read_text(errors="replace") for node in cluster.nodes.values())
    return sum(log.count(text) for log in logs)


@pytest.fixture(autouse=True)
def slow_syncs_are_possible(kind):
    if kind != SORDINI_KIND or shutil.which("strace") is None or not is_possible():
        pytest.skip("needs strace, root, and a process that is no JVM")


@pytest.fixture
def one_node(new_cluster):
    """Starts a cluster of one node, and connects to its two listeners."""
    single = ["default.replication.factor", "offsets.topic.replication.factor"]
    alone = dict.fromkeys([*single, "min.insync.replicas"], "1")

    def start(**settings):
        cluster = new_cluster(count=1, **alone, **settings).start()
        return cluster, connect(cluster[1].port), connect(cluster[1].controller_port)

    return start


def connect(port):
    connection = Connection(port, "slow-disk")
    assert connection.request("ApiVersions", 0, {})["errorCode"] == NONE
    return connection


@pytest.mark.parametrize("where", ["the controller", "all nodes"])
def test_slow_disks_change_no_leader_and_fence_no_broker(cluster, run, where):
    before = cluster.controller_epoch()
    fenced = lines_of(cluster, "broker fenced")
    nodes = cluster.running() if where == "all nodes" else [cluster[before[0]]]
    name = where.replace(" ", "-")
    with slow_syncs(nodes):
        for number in range(2):
            began = time.monotonic()
            run(f"kafka-topics --create --topic {name}-{number} --partitions 2").ok()
            if where == "all nodes":
                assert time.monotonic() - began > DELAY_US / 1e6, "a commit waits for the disks"
            assert cluster.controller_epoch() == before
        time.sleep(4)
        assert cluster.controller_epoch() == before
    assert lines_of(cluster, "broker fenced") == fenced


def creation(name, timeout_ms):
    topic = {"name": name, "numPartitions": 1, "replicationFactor": 1}
    topic |= {"assignments": [], "configs": []}
    return {"topics": [topic], "timeoutMs": timeout_ms, "validateOnly": False}


def test_the_nodes_own_controller_has_request_timeout_ms(one_node):
    """A client of the controller's own broker gets REQUEST_TIMED_OUT while a commit is slow."""
    cluster, client, _ = one_node(request_timeout_ms="1000")
    with slow_syncs([cluster[1]]):
        began = time.monotonic()
        answer = client.request("CreateTopics", 5, creation("late", 20_000))
        assert answer["topics"][0]["errorCode"] == REQUEST_TIMED_OUT, answer
        assert time.monotonic() - began < DELAY_US / 1e6
    cluster.wait_until("the topic is there after all", lambda: cluster.partition("late"))


def test_expired_request_has_no_effect(one_node):
    """A request that waits longer than its `timeoutMs` is refused and has no effect."""
    cluster, client, controller = one_node()
    with slow_syncs([cluster[1]]):
        first = client.send("CreateTopics", 5, creation("first", 20_000))
        time.sleep(0.3)
        answer = controller.request("CreateTopics", 5, creation("second", 500))
        assert answer["topics"][0]["errorCode"] == REQUEST_TIMED_OUT, answer
        answer = client.receive("CreateTopics", 5, first)
        assert answer["topics"][0]["errorCode"] == NONE, answer
    assert cluster.partition("first") and not cluster.partition("second")


def test_a_heartbeat_shows_a_broker_alive_before_it_is_answered(one_node):
    """A broker that the controller cannot reach reconnects. It is not fenced while the response to
    its heartbeat waits for the disk."""
    cluster, client, controller = one_node()
    described = {"includeClusterAuthorizedOperations": False}
    registration = {
        "brokerId": 2,
        "clusterId": client.request("DescribeCluster", 0, described)["clusterId"],
        "incarnationId": str(uuid.uuid4()),
        "listeners": [
            {"name": "PLAINTEXT", "host": "127.0.0.1", "port": free_port(), "securityProtocol": 0}
        ],
        "features": [
            {"name": name, "minSupportedVersion": 0, "maxSupportedVersion": 30}
            for name in FEATURES
        ],
        "rack": None,
        "isMigratingZkBroker": False,
        "logDirs": [str(uuid.uuid4())],
    }
    answer = controller.request("BrokerRegistration", 2, registration)
    assert answer["errorCode"] == NONE, answer
    heartbeat = {
        "brokerId": 2,
        "brokerEpoch": answer["brokerEpoch"],
        "currentMetadataOffset": 1 << 40,
        "wantFence": False,
        "wantShutDown": False,
        "offlineLogDirs": [],
    }
    answer = controller.request("BrokerHeartbeat", 1, heartbeat)
    assert (answer["errorCode"], answer["isFenced"]) == (NONE, False), answer
    with slow_syncs([cluster[1]]):
        first = client.send("CreateTopics", 5, creation("first", 20_000))
        time.sleep(0.3)
        controller.close()
        again = connect(cluster[1].controller_port)
        answer = again.request("BrokerHeartbeat", 1, heartbeat)
        assert (answer["errorCode"], answer["isFenced"]) == (NONE, False), answer
        client.receive("CreateTopics", 5, first)
    assert lines_of(cluster, "broker fenced") == 0
    again.close()
