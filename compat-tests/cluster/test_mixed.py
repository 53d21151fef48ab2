"""A broker of Sordini's beside one of Apache Kafka's, in a cluster that Kafka's controller leads.

With CLUSTER=kafka both brokers are Apache Kafka's: what these tests expect is what it does.
"""

import time

import pytest
from harness.broker import KAFKA_KIND
from harness.cluster import Cluster

CONTROLLER, KAFKA, OURS = 1, 2, 3
SETTINGS = {
    "default.replication.factor": "2",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "2",
    "replica.lag.time.max.ms": "5000",
}


class Mixed(Cluster):
    """A cluster of Apache Kafka's with one broker that may be another's."""

    def __init__(self, kind, directory, **settings):
        super().__init__(
            KAFKA_KIND, directory, count=0, is_dynamic=True, **{**SETTINGS, **settings}
        )
        self.add_node(CONTROLLER, "controller")
        self.add_node(KAFKA, "broker")
        self.add_node(OURS, "broker", kind)


@pytest.fixture(scope="module")
def shared_mixed(kind, tmp_path_factory):
    cluster = Mixed(kind, tmp_path_factory.mktemp("mixed"))
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def mixed(shared_mixed):
    shared_mixed.make_whole()
    yield shared_mixed
    assert shared_mixed.panics() == []


@pytest.fixture
def run(mixed, tools):
    return tools(mixed)


def leaders(cluster, topic):
    seen = cluster.metadata([topic])
    return {p.leader for p in seen.topics[topic].values()} if seen else set()


def elect_preferred(run):
    run("kafka-leader-election --election-type preferred --all-topic-partitions", timeout=90).ok()


@pytest.mark.parametrize("by", [KAFKA, OURS])
def test_both_lead_and_follow(mixed, run, topic, by):
    """What one broker is given, the other has; each creates, produces and consumes."""
    at = f"--bootstrap-server {mixed[by].bootstrap}"
    other = f"--bootstrap-server {mixed[KAFKA + OURS - by].bootstrap}"
    run(f"kafka-topics {at} --create --topic {topic} --partitions 4").ok()
    mixed.wait_until("both lead", lambda: leaders(mixed, topic) == {KAFKA, OURS})
    mixed.wait_until_in_sync()
    lines = [f"{number}" for number in range(1000)]
    run(f"kafka-console-producer {at} --topic {topic}", stdin="\n".join(lines)).ok()
    for group, where in enumerate([at, other]):
        reads = f"--topic {topic} --from-beginning --max-messages 1000 --group {topic}-{group}"
        read = run(f"kafka-console-consumer {where} {reads}").ok()
        assert sorted(read.lines, key=int) == lines
    told = run(f"kafka-topics {other} --describe --topic {topic}").ok().lines
    assert told == run(f"kafka-topics {at} --describe --topic {topic}").ok().lines


@pytest.mark.parametrize("victim", [KAFKA, OURS])
def test_a_broker_is_killed(mixed, run, at_work, victim):
    """Twice, under load: nothing that was acknowledged is lost, whoever leads."""
    work = at_work(mixed, replicas=2, min_isr=1)
    for _ in range(2):
        work.through(f"mixed: kill -9 of {mixed[victim].kind}", lambda: mixed.kill(victim))
        mixed.start(victim)
        mixed.wait_until_in_sync()
        elect_preferred(run)
        time.sleep(1)
    work.end()


@pytest.mark.parametrize("who", [KAFKA, OURS])
def test_a_broker_is_let_go(mixed, run, at_work, who):
    work = at_work(mixed, replicas=2, min_isr=1)
    work.through(f"mixed: restart of {mixed[who].kind}", lambda: mixed.restart(who))
    elect_preferred(run)
    work.end()


def test_the_controller_is_killed(mixed, run, topic):
    """The brokers go on without it, and with it again when it comes back."""
    run(f"kafka-topics --create --topic {topic} --partitions 4").ok()
    mixed.kill(CONTROLLER)
    for at in (KAFKA, OURS):
        to = f"--bootstrap-server {mixed[at].bootstrap} --topic {topic}"
        run(f"kafka-console-producer {to}", stdin="a\nb\n").ok()
    mixed.start(CONTROLLER)
    run(f"kafka-topics --create --topic {topic}-2 --partitions 4", timeout=90).ok()
    mixed.wait_until_in_sync()
    reads = f"--topic {topic} --from-beginning --max-messages 4"
    read = run(f"kafka-console-consumer {reads}").ok()
    assert sorted(read.lines) == ["a", "a", "b", "b"]
