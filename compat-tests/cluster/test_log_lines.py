"""Log lines of a cluster: one line per event, and no warnings in a healthy cluster."""

import socket
import time

import pytest
from harness.broker import SORDINI_KIND
from harness.log_lines import LogLines, field
from test_kills import not_the_controller


@pytest.fixture(autouse=True)
def only_sordini(kind):
    if kind != SORDINI_KIND:
        pytest.skip("the lines are Sordini's own")


def logs(cluster):
    return {node.id: LogLines(node.log) for node in cluster.nodes.values()}


def test_fencing_by_silence_is_logged_once(cluster, run, topic):
    """The controller logs a fencing with its reason and the number of changed partitions."""
    cluster.wait_until_in_sync()
    run(f"kafka-topics --create --topic {topic} --partitions 60 --replication-factor 3").ok()
    cluster.wait_until_in_sync()
    victim = not_the_controller(cluster)
    controller = cluster.controller()
    lines = logs(cluster)
    decided = lines[controller]
    # A broker may not have the new topic yet.
    before = cluster.wait_until(
        "metadata has all partitions of the topic",
        lambda: (seen := cluster.metadata()) and len(seen.topics.get(topic, ())) == 60 and seen,
    )
    led = sum(p.leader == victim for t in before.topics.values() for p in t.values())
    cluster[victim].pause()
    fenced = cluster.wait_until(
        "the fencing is logged",
        lambda: decided.with_text("broker fenced", broker=victim, reason='"session_timeout"'),
        timeout=40,
    )
    assert [level for level, _ in fenced] == ["WARN"]
    message = "leaders and in-sync replicas changed"
    moved = decided.with_text(message, broker=victim, reason='"session_timeout"')
    assert len(moved) == 1 and moved[0][0] == "WARN", moved
    assert field(moved[0], "leader_changed") == led
    # Other leaders may have removed it from their ISRs before.
    assert sum(field(line, "isr_shrunk") for line in decided.with_text(message)) >= 60
    other = next(id for id in cluster.nodes if id not in (victim, controller))
    cluster.wait_until(
        "the new leader logs its role",
        lambda: lines[other].with_text("roles of replicas changed")
        or lines[controller].with_text("roles of replicas changed"),
    )
    cluster[victim].resume()
    cluster.wait_until(
        "the broker logs that it was fenced",
        lambda: lines[victim].with_text("this broker was fenced"),
    )
    cluster.wait_until_in_sync()
    assert len(decided.with_text("broker unfenced", broker=victim)) == 1
    grown = decided.with_text("leaders and in-sync replicas changed", reason='"alter_partition"')
    assert sum(field(line, "isr_expanded") for line in grown) >= 60
    for node_id, seen in lines.items():
        if node_id != controller:
            assert not seen.with_text("broker fenced"), "the active controller alone logs it"
            assert not seen.with_text("leaders and in-sync replicas changed")
        assert len(seen.all()) < 60, "no line per partition"


def test_a_healthy_cluster_logs_no_fault(new_cluster, tools):
    """Start, topics, a controlled restart of each node and a stop log no WARN and no ERROR."""
    cluster = new_cluster().start()
    run = tools(cluster)
    run("kafka-topics --create --topic healthy --partitions 9 --replication-factor 3").ok()
    cluster.wait_until_in_sync()
    controller = cluster.controller()
    created = {id: LogLines(cluster[id].log, from_start=True) for id in cluster.nodes}
    assert created[controller].with_text("topic created", topic="healthy", partitions=9)
    assert created[controller].with_text("controller became active")
    assert created[controller].with_text("quorum leader elected", leader=controller)
    for node_id in cluster.nodes:
        registered = created[controller].with_text("broker registered", broker=node_id)
        assert len(registered) == 1, node_id
        assert created[controller].with_text("broker unfenced", broker=node_id)
    cluster.restart(not_the_controller(cluster))
    stopped = created[cluster.controller()]
    assert stopped.with_text("broker fenced", reason='"controlled_shutdown"')
    for node in cluster.nodes.values():
        assert node.stop() == 0
    time.sleep(0.1)
    faults = {id: seen.faults() for id, seen in created.items() if seen.faults()}
    assert not faults


def test_a_lost_majority_is_logged_once(new_cluster):
    """The remaining node logs the voters that it cannot reach a majority of."""
    cluster = new_cluster(controller_quorum_fetch_timeout_ms="500").start()
    left, *others = sorted(cluster.nodes, key=lambda id: id == cluster.controller())
    lines = LogLines(cluster[left].log)
    cluster.kill(*others)
    message = "no majority of the voters elects a leader"
    cluster.wait_until("it is logged", lambda: lines.with_text(message))
    time.sleep(1)
    [(level, text)] = lines.with_text(message, last_leader=f"Some({others[-1]})")
    assert level == "WARN" and "voters=[{1, 2, 3}]" in text, text


def test_a_taken_port_is_one_plain_error(new_cluster):
    """The node names the port and ends. The Raft library adds no lines."""
    cluster = new_cluster().start()
    node = cluster[3]
    node.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((node.host, node.port))
        taken.listen()
        lines = LogLines(node.log)
        begin = node.log.stat().st_size
        node.start()
        assert node.process.wait(30) == 1
        node.process = None
    text = node.log.read_text()[begin:]
    assert f"cannot listen on {node.bootstrap}" in text
    assert "openraft" not in text and not lines.faults(), text
