"""Nodes die under load, and clients make progress within two seconds."""

import json
import time

import pytest
from at_work import AFTER_A_DEATH_S
from harness.loads import Program
from harness.programs import CLOSING_LINES
from harness.tools import CLASSES


def not_the_controller(cluster):
    controller = cluster.controller()
    return next(node for node in (2, 3, 1) if node != controller)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("whom", ["leader", "controller"])
def test_kill(cluster, at_work, whom, protocol):
    """Kills the controller, or another node. With 6 partitions, each of three nodes leads some."""
    work = at_work(cluster, protocol=protocol)
    victim = cluster.controller() if whom == "controller" else not_the_controller(cluster)
    role = f"{'the controller' if whom == 'controller' else 'a leader'}, {protocol} group"
    work.through(f"kill -9 of {role}", lambda: cluster.kill(victim), AFTER_A_DEATH_S)
    cluster[victim].start()
    work.through(f"return of {role}", lambda: cluster.wait_until_in_sync(60), AFTER_A_DEATH_S)
    work.end()


def test_each_node_in_turn(cluster, at_work):
    """Kills each node, while members of the group join and leave."""
    work = at_work(cluster, has_guest=True, protocol="consumer")
    for victim in [1, 2, 3]:
        work.through(f"kill -9 of {victim}, the group changes", lambda: cluster.kill(victim))
        cluster.start(victim)
        cluster.wait_until_in_sync()
        cluster.elect_preferred()
    totals = work.end()
    CLOSING_LINES.append(f"each node in turn: acknowledged {totals}")


@pytest.fixture
def start(cluster):
    """Starts a stock tool as a process, until the end of the test at the latest."""
    begun = []

    def begin(tool, line):
        where = ["--bootstrap-server", cluster.bootstrap]
        begun.append(Program(CLASSES[tool], *where, *line.split()))
        return begun[-1]

    yield begin
    for program in begun:
        program.kill()


def told(program, what, key):
    """Returns the values of `key` in the events `what` that a verifiable client printed."""
    lines = list(program.out)
    return [json.loads(line)[key] for line in lines if f'"name":"{what}"' in line]


def test_verifiable_clients(cluster, run, topic, start):
    """Runs kafka-verifiable-producer and -consumer while the leader and the coordinator are killed.

    This producer never retries, so its requests in flight may fail when a leader dies.
    """
    run(f"kafka-topics --create --if-not-exists --topic {topic} --partitions 3").ok()
    producer = start(
        "kafka-verifiable-producer",
        f"--topic {topic} --acks -1 --throughput 300 --max-messages 9000",
    )
    consumer = start(
        "kafka-verifiable-consumer",
        f"--topic {topic} --group-id {topic} --reset-policy earliest --verbose",
    )
    cluster.wait_until("records flow", lambda: told(consumer, "record_data", "value"), 60)
    victim = cluster.leader(topic)
    cluster.kill(victim)
    time.sleep(5)
    cluster.start(victim)
    cluster.wait_until_in_sync()
    cluster.kill(cluster.controller())
    cluster.wait_until("it is done", lambda: told(producer, "shutdown_complete", "name"), 120)
    sent = told(producer, "producer_send_success", "value")
    assert len(sent) > 8500, told(producer, "producer_send_error", "exception")[:5]

    def is_read():
        return set(sent) <= set(told(consumer, "record_data", "value"))

    cluster.wait_until("all that was acknowledged is read", is_read, 60)
