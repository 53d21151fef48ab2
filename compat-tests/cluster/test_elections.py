"""Leader election: the preferred replica, an in-sync one, and only on request another one."""

import pytest
from compacting import lead
from confluent_kafka import Producer
from harness import wire

from test_tutorial import described

ELECT = "kafka-leader-election --election-type"


def send(cluster, topic, value, acks="all", timeout_s=8):
    """Sends one record without retries. Returns the name of the error, or None."""
    outcome = []
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "acks": acks,
            "retries": 0,
            "request.timeout.ms": timeout_s * 1000,
            "message.timeout.ms": timeout_s * 1000 + 2000,
            "socket.timeout.ms": timeout_s * 1000 + 2000,
            "topic.metadata.refresh.interval.ms": 500,
            "log_level": 0,
        }
    )
    producer.produce(topic, value, on_delivery=lambda error, _: outcome.append(error))
    assert producer.flush(timeout_s + 10) == 0
    return outcome[0].name() if outcome[0] else None


def values(run, topic, count):
    read = f"kafka-console-consumer --topic {topic} --from-beginning --timeout-ms 30000"
    return run(f"{read} --max-messages {count}").ok().lines


def test_preferred_leaders(cluster, run, topic):
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2:3,2:3:1,3:1:2").ok()
    assert [leader for leader, _, _ in described(run, topic).values()] == ["1", "2", "3"]
    cluster.restart(2)
    leaders = {p: leader for p, (leader, _, _) in described(run, topic).items()}
    assert leaders == {0: "1", 1: "3", 2: "3"}, "the next replica in the list leads"
    elected = run(f"{ELECT} preferred --topic {topic} --partition 1").ok()
    done = f"Successfully completed leader election (PREFERRED) for partitions {topic}-1"
    assert elected.lines == [done]
    cluster.wait_until("2 leads again", lambda: cluster.partition(topic, 1).leader == 2)
    again = run(f"{ELECT} preferred --topic {topic} --partition 1").ok()
    assert again.lines == [f"Valid replica already elected for partitions {topic}-1"]


def test_leaders_are_balanced_by_themselves(new_cluster, tools):
    """auto.leader.rebalance.enable is on by default. Here the controller checks more often."""
    cluster = new_cluster(leader_imbalance_check_interval_seconds="2").start()
    run = tools(cluster)
    run("kafka-topics --create --topic balanced --replica-assignment 1:2:3,2:3:1,3:1:2").ok()
    cluster.restart(1)
    cluster.wait_until("1 leads again", lambda: cluster.partition("balanced", 0).leader == 1, 60)


@pytest.mark.parametrize("how", ["asked", "allowed"])
def test_unclean_election(cluster, run, topic, how):
    """The only in-sync replica dies. Another one leads on request, or if the topic allows it."""
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2"
        " --config min.insync.replicas=1").ok()  # fmt: skip
    assert send(cluster, topic, "in both") is None
    cluster.kill(2)
    cluster.wait_until("the ISR is 1", lambda: cluster.partition(topic).isr == [1], 60)
    assert send(cluster, topic, "in one") is None
    cluster.kill(1)
    cluster.start(2)
    printed = run(f"kafka-topics --describe --topic {topic}").ok().stdout
    assert "Leader: none\tReplicas: 1,2\tIsr: \tElr: 1\tLastKnownElr: " in printed, printed
    assert send(cluster, topic, "nowhere", timeout_s=3) is not None
    assert described(run, topic)[0][0] == "none", "not in sync, so not elected"
    refused = run(f"{ELECT} preferred --topic {topic} --partition 0")
    assert refused.exit == 1 and "PreferredLeaderNotAvailableException" in refused.stderr, refused

    if how == "asked":
        elected = run(f"{ELECT} unclean --topic {topic} --partition 0").ok()
        done = f"Successfully completed leader election (UNCLEAN) for partitions {topic}-0"
        assert elected.lines == [done]
    else:
        run(f"kafka-configs --alter --entity-type topics --entity-name {topic}"
            " --add-config unclean.leader.election.enable=true").ok()  # fmt: skip
    cluster.wait_until("2 leads", lambda: cluster.partition(topic).leader == 2, 60)
    assert values(run, topic, 1) == ["in both"]
    assert send(cluster, topic, "after") is None
    cluster.start(1)
    cluster.wait_until("1 is in sync", lambda: sorted(cluster.partition(topic).isr) == [1, 2])
    assert values(run, topic, 2) == ["in both", "after"], "what only 1 had was cut off"
    run(f"{ELECT} preferred --topic {topic} --partition 0").ok()
    assert values(run, topic, 2) == ["in both", "after"], "and 1 has the same"


def ends_of_epochs(cluster, topic):
    """Returns what the leader knows of its epochs: {epoch: (largest epoch up to it, its end)}."""
    leader = cluster[cluster.leader(topic)]
    ask = lambda epoch: wire.epoch_end(leader.address, topic, epoch)  # noqa: E731
    cluster.wait_until("it leads", lambda: ask(0))
    return {epoch: ask(epoch) for epoch in range(5)}


def test_epochs_without_records(cluster, run, topic):
    """A leader's epoch begins at the end of its log, also before the leader has written anything.
    Other leaders do not know that epoch."""
    nowhere = (-1, -1)
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2:3").ok()
    assert ends_of_epochs(cluster, topic) == {0: (0, 0)} | dict.fromkeys(range(1, 5), nowhere)
    assert send(cluster, topic, "in epoch 0") is None
    lead(cluster, run, [topic], [cluster[it] for it in (2, 3, 1)])
    ends = {0: (0, 1), 1: (1, 1), 2: nowhere, 3: nowhere, 4: nowhere}
    assert ends_of_epochs(cluster, topic) == ends
    lead(cluster, run, [topic], [cluster[it] for it in (3, 1, 2)])
    ends |= {1: (0, 1), 2: (2, 1)}
    assert ends_of_epochs(cluster, topic) == ends
    assert send(cluster, topic, "in epoch 2") is None
    assert ends_of_epochs(cluster, topic) == ends | {2: (2, 2)}
    lead(cluster, run, [topic], [cluster[it] for it in (1, 2, 3)])
    ends |= {2: (2, 2), 3: (3, 2)}
    assert ends_of_epochs(cluster, topic) == ends


def test_min_insync_replicas(cluster, run, topic):
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2:3"
        " --config min.insync.replicas=3").ok()  # fmt: skip
    assert send(cluster, topic, "by three") is None
    cluster.kill(3)
    cluster.wait_until("3 is out", lambda: 3 not in cluster.partition(topic).isr, 60)
    assert send(cluster, topic, "refused") == "NOT_ENOUGH_REPLICAS"
    assert send(cluster, topic, "by one", acks="1") is None
    # Consumers see only records below the high watermark.
    run(f"kafka-configs --alter --entity-type topics --entity-name {topic}"
        " --add-config min.insync.replicas=2").ok()  # fmt: skip
    assert send(cluster, topic, "by two") is None
    assert values(run, topic, 3) == ["by three", "by one", "by two"]


def test_too_few_replicas_while_a_producer_waits(cluster, run, topic):
    """A follower stops. A record is neither acknowledged nor visible until the follower is back."""
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2:3"
        " --config min.insync.replicas=3").ok()  # fmt: skip
    assert send(cluster, topic, "first") is None
    follower = next(n for n in (2, 3) if n != cluster.controller())
    cluster[follower].pause()
    assert send(cluster, topic, "second", timeout_s=14) == "REQUEST_TIMED_OUT"
    assert sorted(cluster.partition(topic).isr) == sorted({1, 2, 3} - {follower})
    # A node that accepts connections but never responds costs the tool 30 s of its 60 s.
    ends = f"kafka-get-offsets --bootstrap-server {cluster[1].bootstrap} --topic {topic}"
    assert run(ends).ok().lines == [f"{topic}:0:1"]
    assert send(cluster, topic, "third") == "NOT_ENOUGH_REPLICAS"
    cluster[follower].resume()
    cluster.wait_until_in_sync()
    assert values(run, topic, 2) == ["first", "second"]


def test_three_replicas_survive_two_failures(new_cluster, tools, at_work):
    """Uses five nodes, so that the quorum keeps a majority."""
    cluster = new_cluster(count=5).start()
    run = tools(cluster)
    run("kafka-topics --create --topic kept --replica-assignment 1:2:3"
        " --config min.insync.replicas=1").ok()  # fmt: skip
    for n in range(20):
        assert send(cluster, "kept", f"value {n}") is None
    for remaining in (2, 1):
        cluster.kill(cluster.leader("kept"))
        running = [node.id for node in cluster.running()]
        cluster.wait_until(
            "another replica leads", lambda: cluster.partition("kept").leader in running
        )
        assert len(cluster.partition("kept").isr) == remaining
    assert send(cluster, "kept", "more") is None
    assert values(run, "kept", 21) == [*(f"value {n}" for n in range(20)), "more"]
    cluster.make_whole()
    assert sorted(cluster.partition("kept").isr) == [1, 2, 3]


def test_topics_need_brokers_for_their_replicas(cluster, run, topic):
    refused = run(f"kafka-topics --create --topic {topic} --replication-factor 4")
    assert refused.exit == 1
    assert (
        "Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be"
        " reached because only 3 broker(s) are registered"
    ) in refused.stdout, refused
    refused = run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2,3:9")
    missing = "The manual partition assignment includes broker 9, but no such broker is registered."
    assert refused.exit == 1 and missing in refused.stdout, refused
    assert cluster.partition(topic) is None
