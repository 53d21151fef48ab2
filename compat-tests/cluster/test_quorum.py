"""The metadata quorum: describing it with kafka-metadata-quorum, and changing its voters."""

import re
import shutil

from harness import wire
from harness.broker import free_port

FIELDS = [
    "ClusterId", "LeaderId", "LeaderEpoch", "HighWatermark", "MaxFollowerLag",
    "MaxFollowerLagTimeMs", "CurrentVoters", "CurrentObservers",
]  # fmt: skip


def status(run, **how):
    printed = run("kafka-metadata-quorum describe --status", **how).ok()
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", printed.stdout, re.M))
    assert list(fields) == FIELDS, printed.stdout
    return fields


def members(field):
    """Returns the ids in `CurrentVoters` or `CurrentObservers`."""
    return sorted(int(found) for found in re.findall(r'"id": (\d+)', field))


def votes_no_more(printed, node):
    """Whether the tool's output shows that the node is no voter. The output is empty while a
    removed leader has no successor, because the tool fails then."""
    voters, others, _ = printed.partition("CurrentObservers")
    return bool(others) and f'"id": {node},' not in voters


def replication(run):
    """Returns the rows of describe --replication: {node: [columns]}."""
    printed = run("kafka-metadata-quorum describe --replication").ok()
    header, *rows = (line.split() for line in printed.lines)
    assert header == [
        "NodeId", "DirectoryId", "LogEndOffset", "Lag", "LastFetchTimestamp",
        "LastCaughtUpTimestamp", "Status",
    ]  # fmt: skip
    return {int(row[0]): row for row in rows}


def test_status_and_replication(cluster, run):
    fields = status(run)
    leader = cluster.controller()
    assert int(fields["LeaderId"]) == leader
    assert members(fields["CurrentVoters"]) == [1, 2, 3]
    for node in cluster.nodes.values():
        assert node.controller.split(":")[1] in fields["CurrentVoters"], fields
    # The tool lists a removed controller for a while.
    assert not set(members(fields["CurrentObservers"])) & {1, 2, 3}
    rows = replication(run)
    assert {node: row[-1] for node, row in rows.items()} == {
        node: "Leader" if node == leader else "Follower" for node in (1, 2, 3)
    }
    human = run("kafka-metadata-quorum describe --replication --human-readable").ok()
    assert human.stdout.count("ms ago") == 6, human.stdout
    direct = run(
        f"kafka-metadata-quorum --bootstrap-controller {cluster[1].controller} describe --status"
    ).ok()
    assert f"LeaderId:               {leader}" in direct.stdout


def test_the_quorum_goes_on_without_its_leader(cluster, run):
    before, epoch = cluster.controller_epoch()
    cluster.kill(before)
    fields = status(run)
    assert int(fields["LeaderId"]) not in (before, -1)
    assert int(fields["LeaderEpoch"]) > epoch
    assert members(fields["CurrentVoters"]) == [1, 2, 3], "a voter that died still is one"
    run("kafka-topics --create --topic without-the-first-controller").ok()
    cluster.start(before)
    assert cluster.controller() != before, "who comes back follows"

    def caught_up():
        row = replication(run)[before]
        return row[-1] == "Follower" and int(row[3]) <= 2

    cluster.wait_until("the node that came back has caught up", caught_up)


FEATURES = {
    "eligible.leader.replicas.version": ("0", "1", "1"),
    "group.version": ("0", "1", "1"),
    "kraft.version": ("0", "1", "0"),
    "metadata.version": ("3.3-IV3", "4.3-IV0", "4.3-IV0"),
    "share.version": ("0", "1", "1"),
    "streams.version": ("0", "1", "1"),
    "transaction.version": ("0", "2", "2"),
}


def features(run, where=""):
    """Returns {feature: (lowest and highest supported level, level)}."""
    printed = run(f"kafka-features {where} describe").ok()
    rows = (line.split()[1::2] for line in printed.lines)
    return {name: (low, high, level) for name, low, high, level, _ in rows}


def test_brokers_refuse_configs_of_others(cluster, run, topic):
    """Each broker refuses configs of another broker, alone or with configs that it accepts."""
    run(f"kafka-topics --create --topic {topic}").ok()
    for node in cluster.nodes.values():
        own, another = (4, str(node.id)), (4, str(node.id % 3 + 1))
        setting = ("log.cleaner.backoff.ms", "15001")
        changes = {another: setting, (2, topic): ("retention.ms", str(86400000 + node.id))}
        told = wire.set_configs(node.address, {own: setting, **changes})
        why = f"Unexpected broker id, expected {node.id}, but received {another[1]}"
        assert told == {own: (0, told[own][1]), another: (42, why), (2, topic): told[(2, topic)]}
        assert told[(2, topic)][0] == 0
        told = wire.set_configs(node.address, {another: setting})
        assert told == {another: (42, why)}
    described = run(f"kafka-configs --describe --entity-type topics --entity-name {topic}").ok()
    assert "retention.ms=86400003" in described.stdout


def test_kraft_version_is_upgraded(new_cluster, tools):
    """The upgrade writes the static voters into the log. From then on they can be changed."""
    cluster = new_cluster()
    cluster.start()
    run = tools(cluster)
    controllers = f"--bootstrap-controller {cluster[1].controller}"
    assert features(run) == features(run, controllers) == FEATURES
    stranger = "--controller-id 3 --controller-directory-id AAAAAAAAAAAAAAAAAAAAAQ"
    refused = run(f"kafka-metadata-quorum remove-controller {stranger}")
    why = "Cluster doesn't support removing voter because the kraft.version feature is 0"
    assert refused.exit == 1 and why in refused.stderr, refused
    refused = run("kafka-features upgrade --feature kraft.version=2")
    assert refused.exit == 1 and "only supports versions 0-1" in refused.stdout, refused
    assert "can be" in run("kafka-features upgrade --feature kraft.version=1 --dry-run").ok().stdout
    assert features(run) == FEATURES
    for _ in range(2):
        run("kafka-features upgrade --feature kraft.version=1").ok()
    refused = run("kafka-features downgrade --feature kraft.version=0 --unsafe")
    assert refused.exit == 1 and "Can't downgrade the version of this" in refused.stdout, refused
    upgraded = {**FEATURES, "kraft.version": ("0", "1", "1")}
    cluster.wait_until("all tell of it", lambda: features(run) == upgraded)
    assert features(run, controllers) == upgraded

    known = ",".join(node.controller for node in cluster.nodes.values())
    quorum = {"controller.quorum.voters": None, "controller.quorum.bootstrap.servers": known}
    cluster.add_node(4, **quorum)
    cluster.start(4)
    status(run, until=lambda out: '"id": 4' in out)
    added = add(run, cluster[4]).ok()
    assert "Added controller 4 with directory id" in added.stdout, added.stdout
    directory = replication(run)[3][1]
    remove = f"remove-controller --controller-id 3 --controller-directory-id {directory}"
    run(f"kafka-metadata-quorum {remove}", timeout=90).ok()
    fields = status(run, until=lambda out: votes_no_more(out, 3))
    assert members(fields["CurrentVoters"]) == [1, 2, 4], fields
    # The files still name the first voters. The voters in the log take precedence.
    for node_id in (1, 2):
        cluster.restart(node_id)
    assert members(status(run)["CurrentVoters"]) == [1, 2, 4]
    run("kafka-topics --create --topic after").ok()


def add(run, node):
    """Runs add-controller with the properties file of the new voter."""
    return run(f"kafka-metadata-quorum --command-config {node.config} add-controller", timeout=90)


def test_controllers_are_added_and_removed(new_cluster, tools):
    """Grows a quorum from one node to three and four without restarts, and shrinks it to three."""
    alone = {"default_replication_factor": "1", "offsets_topic_replication_factor": "1"}
    cluster = new_cluster(is_dynamic=True, count=1, min_insync_replicas="1", **alone)
    cluster.start()
    run = tools(cluster)
    run("kafka-topics --create --topic before --partitions 3").ok()
    first = cluster[1].process.pid
    for node_id in (2, 3, 4):
        cluster.add_node(node_id)
        cluster.start(node_id)
        observers = status(run, until=lambda out, n=node_id: f'"id": {n}' in out)
        assert node_id in members(observers["CurrentObservers"]), observers
        added = add(run, cluster[node_id]).ok()
        assert f"Added controller {node_id} with directory id" in added.stdout, added.stdout
        voters = members(status(run)["CurrentVoters"])
        assert voters == list(range(1, node_id + 1))
    # A node answers at the address of node 9, but no node follows the log as node 9.
    stranger = cluster.add_node(9)
    stranger.controller_port = cluster[1].controller_port
    stranger.write_config()
    stranger.format()
    late = add(run, stranger)
    cluster.nodes.pop(9)
    why = r"Aborted add voter operation for ReplicaKey\(id=9, directoryId=.*\) since it is lagging"
    assert late.exit == 1 and re.search(why, late.stderr), late
    again = add(run, cluster[4])
    assert again.exit == 1 and "DuplicateVoterException" in again.stderr + again.stdout, again
    assert cluster[1].process.pid == first and cluster[1].is_running

    # Of four voters, the first can be removed, whether it leads or not.
    directory = replication(run)[1][1]
    remove = "kafka-metadata-quorum remove-controller --controller-directory-id"
    stranger = run(f"{remove} AAAAAAAAAAAAAAAAAAAAAQ --controller-id 9")
    assert stranger.exit == 1 and "VoterNotFoundException" in stranger.stderr, stranger
    run(f"{remove} {directory} --controller-id 1", timeout=90).ok()
    cluster.wait_until("another voter leads", lambda: cluster.controller() != 1)
    fields = status(run, until=lambda out: votes_no_more(out, 1))
    assert members(fields["CurrentVoters"]) == [2, 3, 4], fields

    # The quorum of three survives the loss of one node, and has the records of the first node.
    leader = cluster.controller()
    cluster.kill(leader)
    fields = status(run)
    assert int(fields["LeaderId"]) not in (1, leader)
    run("kafka-topics --create --topic after", timeout=120).ok()
    assert "before" in run("kafka-topics --list").ok().lines


def test_controllers_join_by_themselves(new_cluster, tools):
    """Controllers auto-join one by one. One that lost its directory rejoins with a new one."""
    alone = {"default_replication_factor": "1", "offsets_topic_replication_factor": "1"}
    joins = {"controller.quorum.auto.join.enable": "true"}
    cluster = new_cluster(is_dynamic=True, count=1, min_insync_replicas="1", **alone)
    cluster.start()
    run = tools(cluster)

    def voters():
        return members(status(run)["CurrentVoters"])

    for node_id in (2, 3):
        cluster.add_node(node_id, **joins)
        cluster.start(node_id)
        expected = list(range(1, node_id + 1))
        cluster.wait_until(f"{node_id} votes", lambda want=expected: voters() == want, 60)

    # A voter that returns on another port updates its address itself.
    moved = cluster[2]
    moved.stop()
    moved.controller_port = free_port()
    cluster.start(2)
    port = str(moved.controller_port)
    cluster.wait_until("it is found", lambda: port in status(run)["CurrentVoters"], 60)

    before = replication(run)[3][1]
    cluster[3].stop()
    shutil.rmtree(cluster[3].data)
    cluster[3].data.mkdir()
    cluster.start(3)

    def votes_anew():
        current = status(run)["CurrentVoters"]
        return before not in current and members(current) == [1, 2, 3]

    cluster.wait_until("3 votes with its new directory", votes_anew, 60)
    cluster.kill(1)
    run("kafka-topics --create --topic after", timeout=90).ok()
