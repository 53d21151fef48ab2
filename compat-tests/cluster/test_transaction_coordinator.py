"""The broker of a transaction coordinator fails, and another one continues its transactions.

The requests are raw ones to chosen nodes: the timeouts of a client would hide how soon the
coordinator serves again.
"""

import struct
import time

import pytest
from at_work import AFTER_A_DEATH_S, AFTER_ANY_FAULT_S, PATIENCE
from harness import wire
from harness.broker import KAFKA_KIND

INIT_PRODUCER_ID, ADD_PARTITIONS, END_TXN = 22, 24, 26
DEADLINE_S = 60


class Transactional:
    """A transactional id. Sends its requests to the coordinator that the given nodes return."""

    def __init__(self, cluster, name):
        self._cluster, self._name = cluster, name
        self._producer = None

    def coordinator(self, nodes):
        """Returns the id of the coordinator's node, or None if no node names one."""
        for node in nodes:
            try:
                found = wire.coordinator(self._cluster[node].address, self._name, wire.TRANSACTION)
            except OSError:
                continue
            if found is not None:
                return found
        return None

    def _ask(self, nodes, api, body):
        """Returns the response of the coordinator, or None if there is none among `nodes`."""
        coordinator = self.coordinator(nodes)
        if coordinator not in nodes:
            return None
        try:
            reply = wire.call(self._cluster[coordinator].address, api, 1, body)
        except OSError:
            return None
        reply.take("i")
        return reply

    def init(self, nodes):
        """Gets a producer id and epoch. Returns whether it has them."""
        body = wire.string(self._name) + struct.pack(">i", 60_000)
        reply = self._ask(nodes, INIT_PRODUCER_ID, body)
        if reply is None or reply.take("h") != 0:
            return False
        self._producer = struct.pack(">qh", reply.take("q"), reply.take("h"))
        return True

    def add(self, nodes, topic):
        """Begins a transaction with partition 0 of a topic. Returns whether it has begun."""
        body = wire.string(self._name) + self._producer
        body += struct.pack(">i", 1) + wire.string(topic) + struct.pack(">ii", 1, 0)
        reply = self._ask(nodes, ADD_PARTITIONS, body)
        if reply is None:
            return False
        assert reply.take("i") == 1
        assert reply.string() == topic
        assert reply.take("i") == 1
        reply.take("i")
        return reply.take("h") == 0

    def commit(self, nodes):
        reply = self._ask(nodes, END_TXN, wire.string(self._name) + self._producer + b"\1")
        return reply is not None and reply.take("h") == 0


def fail(cluster, victim, fault):
    if fault == "kill":
        cluster.kill(victim)
    elif fault == "pause":
        cluster[victim].pause()
    else:
        for node in set(cluster.nodes) - {victim}:
            cluster.network.cut(victim, node)


@pytest.mark.parametrize("fault", ["kill", "pause", "cut"])
def test_another_coordinator_serves(networked_cluster, tools, topic, fault):
    """An open transaction is committed by the next coordinator, soon after the fault."""
    cluster = networked_cluster
    tools(cluster)(f"kafka-topics --create --topic {topic} --partitions 1").ok()
    producer, nodes = Transactional(cluster, topic), sorted(cluster.nodes)
    cluster.wait_until("it has a producer id", lambda: producer.init(nodes))
    cluster.wait_until("it has begun", lambda: producer.add(nodes, topic))
    victim = producer.coordinator(nodes)
    others = [node for node in nodes if node != victim]
    cluster.wait_until_in_sync()
    since = time.monotonic()
    fail(cluster, victim, fault)
    poll(lambda: producer.commit(others))
    # The next transaction begins only after all markers of the first one are written.
    poll(lambda: producer.add(others, topic))
    seconds = time.monotonic() - since
    print(f"{fault} of the transaction coordinator: next transaction after {seconds:.2f} s")
    if cluster.kind != KAFKA_KIND:
        limit = AFTER_A_DEATH_S if fault == "kill" else AFTER_ANY_FAULT_S
        assert seconds < limit * PATIENCE


def poll(holds):
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
