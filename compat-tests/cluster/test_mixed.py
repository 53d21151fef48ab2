"""Brokers of Sordini and of Apache Kafka in one cluster, with controllers of either.

Most tests have one broker of each kind under a controller of Apache Kafka. With CLUSTER=kafka, all
nodes are Apache Kafka, which shows that the tests expect Kafka's behaviour.
"""

import copy
import json
import shutil

import pytest
from at_work import PATIENCE
from compacting import (
    COMPACTED,
    OFFSETS,
    TRANSACTION_STATE,
    Writers,
    create,
    lead,
    leaves_and_leads,
    step,
)
from harness.broker import FAST_HEARTBEATS, KAFKA_KIND
from harness.cluster import Cluster
from harness.members import create_topic, grow
from harness.topics import set_configs
from harness.transactions import fetch, fetches, leave_open, read

CONTROLLER, KAFKA, OURS = 1, 2, 3
SETTINGS = {
    "default.replication.factor": "2",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "2",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "replica.lag.time.max.ms": "5000",
    "log.cleaner.backoff.ms": "50",
    "broker.session.timeout.ms": str(int(3000 + 1000 * PATIENCE)),
    "broker.heartbeat.interval.ms": "1000",
    **FAST_HEARTBEATS,
}
# If a new leader reports a gap in the sequence numbers, librdkafka writes stored records again.
# With one request in flight there are no gaps.
TWO = {"replicas": 2, "min_isr": 1, "in_flight": 1}


class Mixed(Cluster):
    """A cluster of Apache Kafka with one broker of the kind under test. Each broker has a rack."""

    def __init__(self, kind, directory, **settings):
        super().__init__(
            KAFKA_KIND, directory, count=0, is_dynamic=True, **{**SETTINGS, **settings}
        )
        self.add_node(CONTROLLER, "controller")
        self.add_node(KAFKA, "broker", broker_rack="rack-kafka")
        self.add_node(OURS, "broker", kind, broker_rack="rack-ours")


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


@pytest.fixture
def another(tmp_path):
    """Makes clusters for this test alone. They stop at the end of the test."""
    made = []

    def make(kind, **options):
        options = {"count": 0, **SETTINGS, **options}
        made.append(Cluster(kind, tmp_path / f"cluster-{len(made)}", **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
        assert cluster.panics() == []


def leaders(cluster, topic):
    seen = cluster.metadata([topic])
    return {p.leader for p in seen.topics[topic].values()} if seen else set()


def known_to(cluster, topic):
    return [at for at in (KAFKA, OURS) if topic in cluster[at].metadata().topics]


@pytest.mark.parametrize("by", [KAFKA, OURS])
def test_both_lead_and_follow(mixed, run, topic, by):
    """Topics and records of either broker are on the other one, too."""
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
def test_a_broker_is_killed(mixed, at_work, victim):
    """Kills a broker under load. No acknowledged record is lost, whichever broker leads."""
    work = at_work(mixed, **TWO)
    work.through(f"mixed: kill -9 of {mixed[victim].kind}", lambda: mixed.kill(victim))
    mixed.start(victim)
    mixed.wait_until_in_sync()
    mixed.elect_preferred()
    work.end()


@pytest.mark.parametrize("who", [KAFKA, OURS])
def test_a_broker_is_let_go(mixed, at_work, who):
    work = at_work(mixed, **TWO)
    work.through(f"mixed: restart of {mixed[who].kind}", lambda: mixed.restart(who))
    mixed.elect_preferred()
    work.end()


def test_the_controller_is_killed(mixed, run, topic):
    """The brokers serve clients without the controller, and work with it again after its return."""
    run(f"kafka-topics --create --topic {topic} --partitions 4").ok()
    mixed.wait_until("both know it", lambda: known_to(mixed, topic) == [KAFKA, OURS])
    mixed.kill(CONTROLLER)
    for at in (KAFKA, OURS):
        # Only the controller can assign producer ids.
        plain = "--command-property enable.idempotence=false"
        to = f"--bootstrap-server {mixed[at].bootstrap} --topic {topic} {plain}"
        run(f"kafka-console-producer {to}", stdin="a\nb\n").ok()
    mixed.start(CONTROLLER)
    run(f"kafka-topics --create --topic {topic}-2 --partitions 4", timeout=90).ok()
    mixed.wait_until_in_sync()
    reads = f"--topic {topic} --from-beginning --max-messages 4"
    read = run(f"kafka-console-consumer {reads}").ok()
    assert sorted(read.lines) == ["a", "a", "b", "b"]


def test_partitions_move_between_them(mixed, run, topic):
    """Moves partitions from one broker to the other and back, with one replica each time."""
    placed = ",".join([f"{KAFKA}:{OURS}"] * 4)
    run(f"kafka-topics --create --topic {topic} --replica-assignment {placed}").ok()
    lines = [f"{number}" for number in range(500)]
    run(f"kafka-console-producer --topic {topic}", stdin="\n".join(lines)).ok()
    plan = mixed.dir / "plan.json"
    for to in (OURS, KAFKA, OURS):
        moves = [{"topic": topic, "partition": p, "replicas": [to]} for p in range(4)]
        plan.write_text(json.dumps({"version": 1, "partitions": moves}))
        move = f"kafka-reassign-partitions --reassignment-json-file {plan}"
        run(f"{move} --execute").ok()
        run(f"{move} --verify", until=lambda out: out.count("is completed") == 4, within=60).ok()
        mixed.wait_until("it leads", lambda to=to: leaders(mixed, topic) == {to})
        reads = f"--topic {topic} --from-beginning --max-messages 500"
        assert sorted(run(f"kafka-console-consumer {reads}").ok().lines, key=int) == lines
    run(f"kafka-topics --alter --topic {topic} --partitions 6").ok()
    run(f"kafka-topics --delete --topic {topic}").ok()

    mixed.wait_until("the topic is gone", lambda: known_to(mixed, topic) == [])


def fails_over(cluster, run, first, second):
    """Checks that records survive the death of either broker and partitions get new leaders."""
    mine = f"--bootstrap-server {cluster[second].bootstrap}"
    run(f"kafka-topics {mine} --create --topic t --partitions 6").ok()
    cluster.wait_until("both lead", lambda: leaders(cluster, "t") == {first, second})
    for round, victim in enumerate((first, second)):
        cluster.wait_until_in_sync()
        run("kafka-console-producer --topic t", stdin=f"{round}\n" * 100).ok()
        other = first + second - victim
        cluster.kill(victim)
        cluster.wait_until("the other leads", lambda other=other: leaders(cluster, "t") == {other})
        reads = "--topic t --from-beginning --max-messages"
        read = run(f"kafka-console-consumer {reads} {100 * round + 100}").ok().lines
        assert sorted(read) == ["0"] * 100 + ["1"] * 100 * round
        cluster.start(victim)
    cluster.wait_until_in_sync()


@pytest.mark.parametrize("release", ["3.3-IV3", "4.3-IV0"])
def test_three_controllers_of_apache_kafka(another, tools, kind, release):
    """Three controllers in `controller.quorum.voters`. At the oldest metadata version they do not
    register and do not report the cluster id."""
    cluster = another(KAFKA_KIND)
    cluster.first_voters = [cluster.add_node(n, "controller") for n in (1, 2, 3)]
    cluster.add_node(4, "broker")
    cluster.add_node(5, "broker", kind)
    cluster.format_options = lambda node: ["--release-version", release]
    cluster[5].needs_format |= release == "3.3-IV3"
    cluster.start()
    run = tools(cluster)
    for _ in range(2):
        active = cluster.controller()
        cluster.kill(active)
        cluster.wait_until("another leads", lambda was=active: cluster.controller() != was)
        cluster.start(active)
    fails_over(cluster, run, 4, 5)


def test_a_broker_of_apache_kafka_joins_ours(another, tools, kind):
    cluster = another(kind, is_dynamic=True)
    cluster.add_node(1, "controller")
    cluster.add_node(2, "broker", KAFKA_KIND)
    cluster.add_node(3, "broker")
    cluster.start()
    run = tools(cluster)
    fails_over(cluster, run, 2, 3)
    cluster.restart(2)
    cluster.kill(1)
    cluster.start(1)
    run("kafka-topics --create --topic after --partitions 4", timeout=90).ok()
    cluster.wait_until("both lead", lambda: leaders(cluster, "after") == {2, 3})


# For each topic: characters of a value, and sizes of fetches. "large" has several segments.
TRANSACTIONS = {"small": (1, (1, 300, 1 << 20)), "large": (60_000, (1, 300_000))}


@pytest.fixture
def transactions(mixed, run, topic):
    """Topics with transactions. Apache Kafka's broker coordinates them and leads the partitions."""
    at_kafka = f"--replica-assignment {KAFKA} --config cleanup.policy=compact"
    run(f"kafka-topics --create --if-not-exists --topic __transaction_state {at_kafka}").ok()
    for name in TRANSACTIONS:
        placed = f"--replica-assignment {KAFKA}:{OURS} --config segment.bytes=1048576"
        run(f"kafka-topics --create --topic {topic}-{name} {placed}").ok()
    return Transactions(mixed, run, topic)


class Transactions:
    """Writes transactions to topics, and compares Fetch responses with what was committed."""

    def __init__(self, cluster, run, prefix):
        self.cluster, self.run = cluster, run
        self.topics = {f"{prefix}-{name}": how for name, how in TRANSACTIONS.items()}
        self.committed = {topic: [] for topic in self.topics}
        self.end = 0

    def write(self, name, pairs):
        """Writes transactions. The producers bootstrap from Apache Kafka's broker."""
        for topic, (size, _) in self.topics.items():
            bootstrap = self.cluster[KAFKA].bootstrap
            written = self.run(f"transaction-pairs {bootstrap} {topic} {name} {pairs} {size}").ok()
            self.committed[topic] += written.lines
        self.end += 22 * pairs

    def leave_open(self):
        """Begins a transaction in each topic. Returns a function that aborts them."""
        bootstrap = self.cluster[KAFKA].bootstrap
        producers = [leave_open(bootstrap, topic, records=5) for topic in self.topics]
        self.end += 5

        def abort():
            for producer in producers:
                producer.abort_transaction(60)
            self.end += 1

        return abort

    def lead(self, leader):
        """Makes one of the two brokers the leader, and waits until all records are below its high
        watermark."""
        replicas = [leader, KAFKA + OURS - leader]
        plan = self.cluster.dir / "leaders.json"
        moves = [{"topic": topic, "partition": 0, "replicas": replicas} for topic in self.topics]
        plan.write_text(json.dumps({"version": 1, "partitions": moves}))
        self.run(f"kafka-reassign-partitions --reassignment-json-file {plan} --execute").ok()
        self.cluster.wait_until_in_sync()
        self.cluster.elect_preferred()
        for topic in self.topics:
            self.cluster.wait_until("it leads", lambda t=topic: self.has_all(leader, t))

    def coordinate(self, coordinator):
        """Moves the partition of all transactional ids to one of the two brokers."""
        plan = self.cluster.dir / "coordinator.json"
        place = {"topic": "__transaction_state", "partition": 0, "replicas": [coordinator]}
        plan.write_text(json.dumps({"version": 1, "partitions": [place]}))
        self.run(f"kafka-reassign-partitions --reassignment-json-file {plan} --execute").ok()
        self.cluster.wait_until(
            "it coordinates", lambda: leaders(self.cluster, "__transaction_state") == {coordinator}
        )

    def has_all(self, leader, topic):
        answer = fetch(self.cluster[leader], topic, self.end)
        return answer.error == 0 and answer.high_watermark == self.end

    def answers(self, leader):
        """Returns the Fetch responses from every offset on, by topic and number of the fetch."""
        return {
            (topic, number): answer
            for topic, (_, sizes) in self.topics.items()
            for number, answer in enumerate(fetches(self.cluster[leader], topic, sizes))
        }

    def are_on_disk(self, broker, name):
        """Whether a broker's files have the committed and aborted values of `write(name)`."""
        files = [
            path.read_bytes()
            for topic in self.topics
            for path in (self.cluster[broker].data / f"{topic}-0").glob("*.log")
        ]
        values = (f"{name}-{how}-0-0".encode() for how in ("committed", "aborted"))
        return all(any(value in content for content in files) for value in values)

    def check_readers(self):
        """Checks that consumers of both libraries get the committed records and nothing else."""
        for topic, committed in self.committed.items():
            assert read(self.cluster.bootstrap, topic) == committed
            reads = f"--topic {topic} --isolation-level read_committed --from-beginning"
            count = f"--max-messages {len(committed)} --timeout-ms 20000"
            assert self.run(f"kafka-console-consumer {reads} {count}").ok().lines == committed


def differences(found, expected):
    """Returns (found, expected) for each fetch with another response than expected."""
    assert found.keys() == expected.keys()
    return {at: (found[at], expected[at]) for at in found if found[at] != expected[at]}


def check_leaders_in_turn(transactions):
    """Apache Kafka leads, then Sordini, then Apache Kafka again. All return the same responses."""
    transactions.lead(KAFKA)
    answers = transactions.answers(KAFKA)
    transactions.lead(OURS)
    assert differences(transactions.answers(OURS), answers) == {}
    transactions.check_readers()
    transactions.lead(KAFKA)
    assert differences(transactions.answers(KAFKA), answers) == {}


def test_transactions_outlive_changes_of_leader(mixed, transactions):
    """Transactions stay intact while Apache Kafka and Sordini lead in turn."""
    transactions.write("a", pairs=3)
    abort = transactions.leave_open()
    check_leaders_in_turn(transactions)
    abort()
    transactions.write("b", pairs=1)
    check_leaders_in_turn(transactions)


@pytest.mark.parametrize("leader", [KAFKA, OURS])
def test_either_coordinates_transactions(mixed, transactions, leader):
    """An open transaction goes on when the other broker becomes its coordinator. Both brokers write
    markers to partitions of the other one."""
    transactions.lead(leader)
    for number, coordinator in enumerate((OURS, KAFKA)):
        abort = transactions.leave_open()
        transactions.coordinate(coordinator)
        transactions.write(f"by-{number}", pairs=2)
        abort()
    check_leaders_in_turn(transactions)


def test_kafka_takes_over_what_a_follower_truncated(mixed, transactions):
    """Apache Kafka's broker loses its last transactions, and Sordini truncates them. Then Apache
    Kafka starts on Sordini's directory."""
    transactions.write("a", pairs=2)
    transactions.lead(KAFKA)
    kept = {topic: mixed.dir / f"kept-{topic}" for topic in transactions.topics}
    for topic, copied in kept.items():
        shutil.copytree(mixed[KAFKA].data / f"{topic}-0", copied)
    end, committed = transactions.end, copy.deepcopy(transactions.committed)
    transactions.write("b", pairs=3)
    transactions.lead(KAFKA)
    assert transactions.are_on_disk(OURS, "b")
    transactions.end, transactions.committed = end, committed
    mixed[OURS].stop()
    mixed.kill(KAFKA)
    for topic, copied in kept.items():
        shutil.rmtree(mixed[KAFKA].data / f"{topic}-0")
        copied.rename(mixed[KAFKA].data / f"{topic}-0")
    mixed.start(KAFKA)
    transactions.write("c", pairs=2)
    mixed.start(OURS)
    transactions.lead(KAFKA)
    answers = transactions.answers(KAFKA)
    transactions.lead(OURS)
    assert differences(transactions.answers(OURS), answers) == {}
    transactions.check_readers()
    ours = mixed[OURS]
    assert not transactions.are_on_disk(OURS, "b"), "they are cut off"
    assert ours.stop() in (0, 143)
    kind, ours.kind = ours.kind, KAFKA_KIND
    try:
        mixed.start(OURS)
        transactions.lead(OURS)
        assert differences(transactions.answers(OURS), answers) == {}
        transactions.check_readers()
        log = ours.log.read_text()
        for topic in transactions.topics:
            snapshot = "Loading producer state from snapshot file 'SnapshotFile(offset=88,"
            assert f"[ProducerStateManager partition={topic}-0] {snapshot}" in log
            assert f"Log loaded for partition {topic}-0 with initial high watermark 88" in log
        assert "corrupt" not in log
    finally:
        ours.kill()
        ours.kind = kind


def test_both_compact_what_either_leads(mixed, run):
    """Either broker is away for some rounds, reads a compacted log of the other one, and leads."""
    kafka, ours = mixed[KAFKA], mixed[OURS]
    create(mixed, "compacted", 4, [KAFKA, OURS])
    placed = f"--replica-assignment {KAFKA}:{OURS} --config cleanup.policy=compact"
    run(f"kafka-topics --create --if-not-exists --topic {TRANSACTION_STATE} {placed}").ok()
    set_configs(mixed, TRANSACTION_STATE, COMPACTED | {"internal.segment.bytes": "300"})
    writers = Writers(mixed, "compacted")
    writers.write_step()
    set_configs(mixed, OFFSETS, COMPACTED)
    lead(mixed, run, ["compacted", OFFSETS, TRANSACTION_STATE], [ours, kafka])
    step(writers, [ours, kafka])
    leaves_and_leads(writers, run, kafka.stop, kafka, [ours], rounds=2)
    leaves_and_leads(writers, run, ours.stop, ours, [kafka], rounds=2)


@pytest.fixture
def groups(mixed, live_groups, topic):
    """Groups of both protocols, and one with a regular expression. Each reads its own topic."""
    made = []
    for protocol, name in [("classic", "classic"), ("consumer", "named"), ("consumer", "regex")]:
        read = f"{topic}-{name}"
        create_topic(mixed, read, 6, replicas=2)
        group = live_groups(mixed, read, protocol)
        group.join([read if name != "regex" else f"^{topic}-re.*"], 2)
        # A Java member that leads a classic group asks for new partitions every five minutes only.
        if name == "named":
            group.join_java(read)
        made.append((group, read))
    return made


def by_election(mixed, run, coordinator):
    other = KAFKA + OURS - coordinator
    lead(mixed, run, [OFFSETS], [mixed[coordinator], mixed[other]])


def by_death(mixed, run, coordinator):
    mixed.kill(KAFKA + OURS - coordinator)


@pytest.mark.parametrize("change", [by_election, by_death])
def test_either_coordinates_groups(mixed, run, groups, change):
    """Apache Kafka and Sordini coordinate live groups in turn. Members go on with the same epochs
    and partitions. New partitions have reached the members before each change, so each broker has
    to compute the metadata hash that the other one computed."""
    for turn, coordinator in enumerate([OURS, KAFKA]):
        mixed.make_whole()
        for group, topic in groups:
            grow(mixed, topic, 7 + turn)
            group.settle([topic])
            group.work()
        change(mixed, run, coordinator)
        for group, topic in groups:
            group.wait_until_coordinated_by(coordinator)
            group.work()
            group.check_undisturbed()
