"""Replicas that move between the two log directories of three nodes, under load and faults."""

import json
import random
import time

import pytest
from differential.wire import Connection

REPLICA_NOT_AVAILABLE, LOG_DIR_NOT_FOUND = 9, 57
DIRS = ("data", "other")


@pytest.fixture
def directories(new_cluster):
    """Three nodes with two log directories each."""
    cluster = new_cluster()
    for node in cluster.nodes.values():
        node.settings["log.dirs"] = ",".join(str(node.dir / name) for name in DIRS)
    return cluster.start()


@pytest.fixture
def plan(directories, tmp_path):
    """Writes a reassignment file from {(topic, partition): {replica: directory or None}}."""

    def write(moves):
        def log_dirs(replicas):
            of_node = lambda node, name: str(directories[node].dir / name) if name else "any"  # noqa: E731
            return [of_node(*it) for it in replicas.items()]

        partitions = [
            {"topic": topic, "partition": at, "replicas": list(to), "log_dirs": log_dirs(to)}
            for (topic, at), to in moves.items()
        ]
        file = tmp_path / "plan.json"
        file.write_text(json.dumps({"version": 1, "partitions": partitions}))
        return file

    return write


def lying(run, topic):
    """Returns {partition: {broker: directory}}, and whether a replica is being moved."""
    printed = run(f"kafka-log-dirs --describe --topic-list {topic}").ok()
    found, is_moving = {}, False
    for broker in json.loads(printed.lines[-1])["brokers"]:
        for log_dir in broker["logDirs"]:
            for it in log_dir["partitions"]:
                is_moving |= it["isFuture"]
                if not it["isFuture"]:
                    index = int(it["partition"].rsplit("-", 1)[1])
                    name = log_dir["logDir"].rsplit("/", 1)[1]
                    found.setdefault(index, {})[broker["broker"]] = name
    return found, is_moving


def reassign(run, file, replicas):
    """Executes a plan and waits until `replicas` of its moves are complete."""
    arguments = f"kafka-reassign-partitions --reassignment-json-file {file}"
    run(f"{arguments} --execute --timeout 30000", timeout=90).ok()
    is_done = lambda out: out.count("completed successfully") == replicas and "progress" not in out  # noqa: E731
    done = run(f"{arguments} --verify", until=is_done, within=90)
    assert is_done(done.stdout), done


def fill(run, topic, records):
    run(f"kafka-producer-perf-test --topic {topic} --num-records {records} --record-size 100000"
        " --throughput -1 --command-property acks=all", timeout=120).ok()  # fmt: skip


def test_reassigned_into_directories(directories, tools, plan):
    """Moves to directories of brokers with a replica, and of one that must create it."""
    run = tools(directories)
    run("kafka-topics --create --topic placed --replica-assignment 1:2,2:3,3:1").ok()
    fill(run, "placed", 60)
    wanted = {
        0: {1: "other", 3: "other"},
        1: {2: "data", 3: "data"},
        2: {1: "other", 2: "other"},
    }
    reassign(run, plan({("placed", at): to for at, to in wanted.items()}), 6)
    assert lying(run, "placed") == (wanted, False)
    back = {at: {broker: DIRS[name == DIRS[0]] for broker, name in to.items()}
            for at, to in wanted.items()}  # fmt: skip
    reassign(run, plan({("placed", at): to for at, to in back.items()}), 6)
    assert lying(run, "placed") == (back, False)
    directories.wait_until_in_sync()
    ends = run("kafka-get-offsets --topic placed").ok().lines
    assert sum(int(line.rsplit(":", 1)[1]) for line in ends) == 60

    elsewhere = directories[2]
    assert altered(elsewhere, "other", "placed", 0) == REPLICA_NOT_AVAILABLE
    assert altered(elsewhere, "none-such", "placed", 0) == LOG_DIR_NOT_FOUND


def altered(node, name, topic, partition):
    """Sends AlterReplicaLogDirs to a node. Returns the error code of the partition."""
    connection = Connection(node.port, "directories")
    dirs = [{"path": str(node.dir / name), "topics": [{"name": topic, "partitions": [partition]}]}]
    answer = connection.request("AlterReplicaLogDirs", 2, {"dirs": dirs})
    connection.close()
    return answer["results"][0]["partitions"][0]["errorCode"]


def test_moves_under_load(directories, tools, at_work, plan):
    """All replicas move between directories repeatedly while nodes are killed."""
    run = tools(directories)
    work = at_work(directories)
    topic = work.topics[1]
    chance = random.Random(7)
    nodes = list(directories.nodes)
    for round_ in range(4):
        to = {
            (name, at): {node: chance.choice(DIRS) for node in nodes}
            for name in (topic, "__consumer_offsets")
            for at in range(6)
        }
        file = plan(to)
        run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}", timeout=90).ok()
        if round_ % 2:
            victim = directories[1 + round_ // 2]
            victim.kill()
            time.sleep(1)
            directories.start(victim.id)
        reassign(run, file, 36)
        directories.wait_until_in_sync()
        for name in (topic, "__consumer_offsets"):
            assert lying(run, name) == ({at: to[name, at] for at in range(6)}, False)
    work.end()


def test_leaders_change_on_the_way(directories, tools, plan):
    run = tools(directories)
    run("kafka-topics --create --topic led --replica-assignment 1:2:3"
        " --config min.insync.replicas=2").ok()  # fmt: skip
    fill(run, "led", 80)
    to = {node: "other" if at == "data" else "data"
          for node, at in lying(run, "led")[0][0].items()}  # fmt: skip
    file = plan({("led", 0): to})
    arguments = f"kafka-reassign-partitions --reassignment-json-file {file}"
    run(f"{arguments} --execute --replica-alter-log-dirs-throttle 500000").ok()
    assert lying(run, "led")[1], "it takes a while"
    directories[1].kill()
    directories.wait_until("another leads", lambda: directories.leader("led") != 1)
    fill(run, "led", 20)
    directories.start(1)
    directories.wait_until_in_sync()
    run("kafka-leader-election --election-type preferred --topic led --partition 0").ok()
    fill(run, "led", 20)
    limit = "replica.alter.log.dirs.io.max.bytes.per.second"
    for node in directories.nodes:
        run("kafka-configs --alter --entity-type brokers --entity-name"
            f" {node} --delete-config {limit}").ok()  # fmt: skip
    is_done = lambda out: out.count("completed successfully") == 3  # noqa: E731
    done = run(f"{arguments} --verify", until=is_done, within=60)
    assert is_done(done.stdout), done
    assert lying(run, "led") == ({0: to}, False)
    directories.wait_until_in_sync()
    assert run("kafka-get-offsets --topic led").ok().lines == ["led:0:120"]
