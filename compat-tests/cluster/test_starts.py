"""Restarts: the replay of metadata that a node has applied before must not delete or recreate its
replicas."""

from test_reassign import fill, plan, verified  # noqa: F401


def restart_in_place(cluster, node, topic):
    """Restarts a node. It must keep its files of the topic."""
    cluster.wait_until_in_sync()
    log = cluster[node].data / f"{topic}-0" / f"{0:020}.log"
    before = log.stat().st_ino
    cluster.restart(node)
    cluster.wait_until_in_sync()
    assert log.stat().st_ino == before, "the replica was created again"


def test_replica_survives_move_away_and_back(cluster, run, topic, plan):  # noqa: F811
    """A replica that moved away and came back is not deleted by the replay of its removal."""
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2").ok()
    fill(run, topic, 5)
    for moved in ([1, 3], [1, 2]):
        file = plan({(topic, 0): moved})
        run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
        verified(run, file, until=lambda out: "is completed" in out, within=60)
    restart_in_place(cluster, 2, topic)


def test_recreated_topic_keeps_its_files_after_restart(cluster, run, topic):
    create = f"kafka-topics --create --topic {topic} --replica-assignment 1:2"
    run(create).ok()
    fill(run, topic, 1)
    run(f"kafka-topics --delete --topic {topic}").ok()
    data = cluster[2].data
    cluster.wait_until("it is gone", lambda: not (data / f"{topic}-0").exists())
    run(create).ok()
    fill(run, topic, 5)
    restart_in_place(cluster, 2, topic)


def test_replicas_removed_while_down_are_deleted(cluster, run, topic, plan):  # noqa: F811
    """Replicas that were deleted or moved while the node was down are removed at its start.
    A directory of a topic that metadata does not know stays."""
    deleted, moved = f"{topic}-deleted", f"{topic}-moved"
    for name in (deleted, moved):
        run(f"kafka-topics --create --topic {name} --replica-assignment 1:2").ok()
        fill(run, name, 1)
    dirs = [cluster[2].data / f"{name}-0" for name in (deleted, moved)]
    unknown = cluster[2].data / f"{topic}-unknown-0"
    cluster[2].kill()
    assert all(path.exists() for path in dirs)
    unknown.mkdir()
    # kafka-reassign-partitions waits a minute for a broker that leaves between two of its requests.
    cluster.wait_until_registered()
    run(f"kafka-topics --delete --topic {deleted}").ok()
    file = plan({(moved, 0): [1, 3]})
    run(f"kafka-reassign-partitions --execute --reassignment-json-file {file}").ok()
    verified(run, file, until=lambda out: "is completed" in out, within=60)
    cluster[2].start()
    cluster.wait_until_in_sync()
    cluster.wait_until("they are gone", lambda: not any(path.exists() for path in dirs))
    assert not list(cluster[2].data.glob("*-delete")) and unknown.exists()
    unknown.rmdir()
