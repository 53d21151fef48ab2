"""kafka-reassign-partitions, and the removal of a broker from the cluster."""

import json
import re

import pytest

PLAN = "Proposed partition reassignment configuration\n"


@pytest.fixture
def plan(tmp_path):
    """Writes a reassignment file from {(topic, partition): replicas}."""

    def write(moves):
        partitions = [
            {"topic": topic, "partition": partition, "replicas": replicas}
            for (topic, partition), replicas in moves.items()
        ]
        file = tmp_path / "plan.json"
        file.write_text(json.dumps({"version": 1, "partitions": partitions}))
        return file

    return write


def fill(run, topic, megabytes):
    run(f"kafka-producer-perf-test --topic {topic} --num-records {megabytes * 100}"
        " --record-size 10000 --throughput -1 --command-property acks=all"
        " batch.size=100000", timeout=120).ok()  # fmt: skip


def replicas(cluster, topic):
    found = cluster.metadata([topic]).topics[topic]
    return {index: sorted(partition.replicas) for index, partition in found.items()}


def verified(run, file, **how):
    return run(f"kafka-reassign-partitions --verify --reassignment-json-file {file}", **how).ok()


def test_generate_execute_verify(cluster, run, topic, tmp_path):
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2,2:1,1:2").ok()
    fill(run, topic, 5)
    topics = tmp_path / "topics.json"
    topics.write_text(json.dumps({"version": 1, "topics": [{"topic": topic}]}))
    generated = run("kafka-reassign-partitions --generate --broker-list 2,3"
                    f" --topics-to-move-json-file {topics}").ok()  # fmt: skip
    assert "Current partition replica assignment\n" in generated.stdout
    proposed = json.loads(generated.stdout.split(PLAN)[1])
    assert [sorted(p["replicas"]) for p in proposed["partitions"]] == [[2, 3]] * 3
    file = tmp_path / "proposed.json"
    file.write_text(json.dumps(proposed))

    executed = run("kafka-reassign-partitions --execute --throttle 50000000"
                   f" --reassignment-json-file {file}").ok()  # fmt: skip
    names = ",".join(f"{topic}-{index}" for index in range(3))
    assert f"Successfully started partition reassignments for {names}" in executed.stdout
    assert "The inter-broker throttle limit was set to 50000000 B/s" in executed.stdout
    assert "Save this to use as the --reassignment-json-file option" in executed.stdout
    done = verified(
        run, file, until=lambda out: out.count("is completed") == 3 and "Clearing" in out, within=60
    )
    assert f"Reassignment of partition {topic}-0 is completed." in done.stdout
    assert "Clearing broker-level throttles on brokers 1,2,3" in done.stdout
    assert f"Clearing topic-level throttles on topic {topic}" in done.stdout
    moved = dict.fromkeys(range(3), [2, 3])
    cluster.wait_until("replicas moved", lambda: replicas(cluster, topic) == moved)
    cluster.wait_until_in_sync()
    configs = run(f"kafka-configs --describe --entity-type topics --entity-name {topic}").ok()
    assert "throttled" not in configs.stdout
    offsets = run(f"kafka-get-offsets --topic {topic}").ok().lines
    assert sum(int(line.rsplit(":", 1)[1]) for line in offsets) == 500
    assert not list(cluster[1].data.glob(f"{topic}-[0-9]")), "the old replicas' files are gone"


def test_throttle_and_cancel(cluster, run, topic, plan):
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2").ok()
    fill(run, topic, 20)
    file = plan({(topic, 0): [1, 3]})
    execute = f"kafka-reassign-partitions --execute --reassignment-json-file {file}"
    run(f"{execute} --throttle 100000").ok()
    under_way = verified(run, file)
    assert f"Reassignment of partition {topic}-0 is still in progress." in under_way.stdout
    listed = run("kafka-reassign-partitions --list").ok()
    assert f"{topic}-0: replicas: 1,3,2. adding: 3. removing: 2." in listed.stdout, listed
    throttled = run(f"kafka-configs --describe --entity-type topics --entity-name {topic}").ok()
    assert "leader.replication.throttled.replicas=0:1,0:2" in throttled.stdout, throttled.stdout
    assert "follower.replication.throttled.replicas=0:3" in throttled.stdout
    broker = run("kafka-configs --describe --entity-type brokers --entity-name 1").ok()
    assert "leader.replication.throttled.rate=100000" in broker.stdout

    again = run(execute)
    assert again.exit == 1 and "Cannot execute because there is an existing partition assignment" \
        in again.stdout + again.stderr, again  # fmt: skip
    run(f"{execute} --additional --throttle 200000").ok()
    assert "is still in progress" in verified(run, file).stdout, "20 MB at 0.2 MB/s take longer"

    cancelled = run(f"kafka-reassign-partitions --cancel --reassignment-json-file {file}").ok()
    assert f"Successfully cancelled partition reassignment for: {topic}-0" in cancelled.stdout
    assert "No partition reassignments found" in run("kafka-reassign-partitions --list").ok().stdout
    cluster.wait_until("as before", lambda: replicas(cluster, topic) == {0: [1, 2]})
    cluster.wait_until_in_sync()
    assert "throttled" not in run(
        f"kafka-configs --describe --entity-type topics --entity-name {topic}"
    ).stdout


def test_reassign_under_load(cluster, run, at_work, plan):
    """The replicas of partitions change their order and leaders while clients use them."""
    work = at_work(cluster)
    topic = work.topics[1]
    file = plan({(topic, p): [[1, 2], [2, 3], [3, 1]][p % 3] for p in range(6)})
    run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
    verified(run, file, until=lambda out: out.count("is completed") == 6, within=60)
    file = plan({(topic, p): [[3, 1, 2], [1, 2, 3], [2, 3, 1]][p % 3] for p in range(6)})
    run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
    verified(run, file, until=lambda out: out.count("is completed") == 6, within=60)
    work.end()


def test_a_broker_leaves_for_good(cluster, run, topic, plan):
    """A fourth node, only a broker, joins, serves, gives its replicas away and is unregistered."""
    node = cluster.nodes.get(4) or cluster.add_node(4, roles="broker")
    try:
        cluster.start(4)
        run(f"kafka-topics --create --topic {topic} --replica-assignment 4:1:2,1:4:2").ok()
        fill(run, topic, 2)
        assert cluster.leader(topic) == 4
        file = plan({(topic, 0): [1, 2, 3], (topic, 1): [1, 2, 3]})
        run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
        verified(run, file, until=lambda out: out.count("is completed") == 2, within=60)
        cluster.wait_until_in_sync()
        # Replicas of internal topics move, too.
        on_it = {
            (name, index): [1, 2, 3]
            for name, partitions in cluster.metadata().topics.items()
            for index, partition in partitions.items()
            if 4 in partition.replicas
        }
        assert not on_it, on_it
        assert node.stop() in (0, 143)
        cluster.wait_until_registered()
        fenced = run("kafka-cluster list-endpoints --include-fenced-brokers").ok()
        assert re.search(r"^4\s.*\sfenced\s", fenced.stdout, re.M), fenced.stdout
        gone = run("kafka-cluster unregister --id 4").ok()
        assert gone.lines == ["Broker 4 is no longer registered."]
        after = run("kafka-cluster list-endpoints --include-fenced-brokers").ok()
        assert not re.search(r"^4\s", after.stdout, re.M), after.stdout
        unknown = run("kafka-cluster unregister --id 4")
        assert unknown.exit != 0, unknown
    finally:
        cluster.forget(4)
        # After a failure, later tests must not find the node.
        run("kafka-cluster unregister --id 4")
