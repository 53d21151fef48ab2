"""Processes die under load, and a group goes on within two seconds."""

import json
import time

import pytest
from at_work import AFTER_A_DEATH_S
from harness.programs import CLOSING_LINES
from harness.shell import Shell


def not_the_controller(cluster):
    controller = cluster.controller()
    return next(node for node in (2, 3, 1) if node != controller)


@pytest.mark.parametrize("whom", ["leader", "controller"])
def test_kill(cluster, at_work, whom):
    """With 6 partitions on three nodes, every node leads some: one that is the controller, too."""
    work = at_work(cluster)
    victim = cluster.controller() if whom == "controller" else not_the_controller(cluster)
    role = "the controller" if whom == "controller" else "a leader"
    work.through(f"kill -9 of {role}", lambda: cluster.kill(victim), AFTER_A_DEATH_S)
    cluster[victim].start()
    work.through(f"{role} comes back", lambda: cluster.wait_until_in_sync(60), AFTER_A_DEATH_S)
    work.end()


def elect_preferred(run):
    """Every node leads its share again; where all do, the tool has nothing to do."""
    run("kafka-leader-election --election-type preferred --all-topic-partitions", timeout=90).ok()


def test_each_node_in_turn(cluster, at_work, run):
    """Twice, while members of the group come and go."""
    work = at_work(cluster, has_guest=True)
    for victim in [1, 2, 3] * 2:
        work.through(f"kill -9 of {victim}, members changing", lambda: cluster.kill(victim))
        cluster.start(victim)
        cluster.wait_until_in_sync()
        elect_preferred(run)
    totals = work.end()
    CLOSING_LINES.append(f"each node in turn: acknowledged {totals}")


def told(printed, what, key):
    """What a verifiable client told of each record: the values of `key` in the events `what`."""
    events = (json.loads(line) for line in printed.splitlines() if f'"name":"{what}"' in line)
    return [event[key] for event in events]


def test_verifiable_clients(cluster, run, topic, tool_host):
    """kafka-verifiable-producer and -consumer through the death of leader and coordinator.

    This producer never tries again, so that what it has under way when a leader dies may fail.
    """
    run(f"kafka-topics --create --if-not-exists --topic {topic} --partitions 3").ok()
    shell = Shell(cluster, tool_host, None, record=False)
    producer = shell.start(
        f"kafka-verifiable-producer --topic {topic} --acks -1 --throughput 300 --max-messages 9000"
    )
    consumer = shell.start(
        f"kafka-verifiable-consumer --topic {topic} --group-id {topic}"
        " --reset-policy earliest --verbose"
    )
    cluster.wait_until("records flow", lambda: "record_data" in consumer.peek().stdout, 60)
    victim = cluster.leader(topic)
    cluster.kill(victim)
    time.sleep(5)
    cluster.start(victim)
    cluster.wait_until_in_sync()
    cluster.kill(cluster.controller())
    printed = producer.wait(timeout=120).ok().stdout
    sent = told(printed, "producer_send_success", "value")
    assert len(sent) > 8500, told(printed, "producer_send_error", "exception")[:5]

    def is_read():
        return set(sent) <= set(told(consumer.peek().stdout, "record_data", "value"))

    cluster.wait_until("all that was acknowledged is read", is_read, 60)
    consumer.stop()
