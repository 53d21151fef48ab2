"""What a start hears of again, it has done before: metadata from the last snapshot on."""

from test_reassign import fill


def log_of(cluster, node, topic):
    return cluster[node].data / f"{topic}-0" / f"{0:020}.log"


def test_a_topic_with_the_name_of_another(cluster, run, topic):
    create = f"kafka-topics --create --topic {topic} --replica-assignment 1:2"
    run(create).ok()
    fill(run, topic, 1)
    run(f"kafka-topics --delete --topic {topic}").ok()
    cluster.wait_until("it is gone", lambda: not log_of(cluster, 2, topic).exists())
    run(create).ok()
    fill(run, topic, 5)
    cluster.wait_until_in_sync()
    log = log_of(cluster, 2, topic)
    before = log.stat().st_ino
    cluster.restart(2)
    cluster.wait_until_in_sync()
    assert log.stat().st_ino == before, "the replica was made anew"
