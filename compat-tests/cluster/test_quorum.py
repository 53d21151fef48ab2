"""The metadata quorum as kafka-metadata-quorum shows and changes it."""

import re

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
    """The ids in `CurrentVoters` or `CurrentObservers`."""
    return sorted(int(found) for found in re.findall(r'"id": (\d+)', field))


def replication(run):
    """The rows of describe --replication: {node: [columns]}."""
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
    # One that has left is listed for a while.
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


def add(run, node):
    """add-controller takes the files of the node that is to become a voter."""
    return run(f"kafka-metadata-quorum --command-config {node.config} add-controller", timeout=90)


def test_controllers_are_added_and_removed(new_cluster, tools):
    """From one node to three and four without a restart of the first, and back to three."""
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
    again = add(run, cluster[4])
    assert again.exit == 1 and "DuplicateVoterException" in again.stderr + again.stdout, again
    assert cluster[1].process.pid == first and cluster[1].is_running

    # Four voters: the first may go, whoever leads.
    directory = replication(run)[1][1]
    remove = "kafka-metadata-quorum remove-controller --controller-directory-id"
    stranger = run(f"{remove} AAAAAAAAAAAAAAAAAAAAAQ --controller-id 9")
    assert stranger.exit == 1 and "VoterNotFoundException" in stranger.stderr, stranger
    run(f"{remove} {directory} --controller-id 1", timeout=90).ok()
    cluster.wait_until("another voter leads", lambda: cluster.controller() != 1)
    fields = status(run, until=lambda out: '"id": 1,' not in out.split("CurrentObservers")[0])
    assert members(fields["CurrentVoters"]) == [2, 3, 4], fields

    # The quorum of three outlives one of them, and knows what the first node once decided.
    leader = cluster.controller()
    cluster.kill(leader)
    fields = status(run)
    assert int(fields["LeaderId"]) not in (1, leader)
    run("kafka-topics --create --topic after").ok()
    assert "before" in run("kafka-topics --list").ok().lines
