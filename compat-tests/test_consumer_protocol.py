"""Consumer groups of KIP-848 with stock tools and librdkafka: rebalances, static members, regular
expressions, restarts, the configs of groups."""

import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from harness.broker import FAST_HEARTBEATS, KAFKA_KIND, SORDINI_KIND, Broker
from harness.members import GROUPS, TIMEOUT_S, Member, epochs, wait_for
from harness.shell import Shell


@pytest.fixture(scope="module")
def broker(kind, tmp_path_factory):
    broker = Broker(kind, tmp_path_factory.mktemp("modern"))
    broker.settings |= FAST_HEARTBEATS
    yield broker.start()
    broker.stop()


@pytest.fixture
def create(broker):
    """Creates topics on the broker of this file."""
    return lambda name, partitions=1: create_topic(broker, name, partitions)


def create_topic(broker, name, partitions=1):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(TIMEOUT_S)
    return name


def sizes(members):
    owned = [member.owned() for member in members]
    assert sum(map(len, owned)) == len(set().union(*owned)), f"a partition has two owners: {owned}"
    return [len(it) for it in owned]


def test_live_members(shell, create):
    """A group with a live member: its offsets, members and state, and refused changes."""
    topic = create("modern-live", 2)
    keyed = "--reader-property parse.key=true --reader-property key.separator=:"
    shell(f"kafka-console-producer --topic {topic} {keyed}", stdin="key:a\nkey:b\n").ok()
    member = shell.start(
        f"kafka-console-consumer --topic {topic} --group modern-live-group --from-beginning"
        " --command-property client.id=live-client --command-property group.protocol=consumer"
        " --command-property auto.commit.interval.ms=200"
    )
    describe = f"{GROUPS} --describe --group modern-live-group"

    def is_caught_up():
        lines = shell(describe, transcript=False).lines
        rows = [line.split() for line in lines if line.startswith("modern-live-group")]
        return len(rows) == 2 and all(row[5] == "0" for row in rows)

    wait_for("offsets are committed", is_caught_up)
    for options in ("--offsets", "--offsets --verbose", "--members", "--members --verbose",
                    "--state", "--state --verbose"):  # fmt: skip
        shell(f"{describe} {options}")
    for options in ("--type consumer", "--state Stable"):
        listed = shell(f"{GROUPS} --list {options}", transcript=False).ok()
        assert any(line.split()[:1] == ["modern-live-group"] for line in listed.lines), listed.stdout
    listed = shell("kafka-groups --list --consumer", transcript=False).ok()
    assert ["modern-live-group", "Consumer", "consumer"] in [line.split() for line in listed.lines]
    shell(f"{GROUPS} --delete --group modern-live-group")
    shell(f"{GROUPS} --reset-offsets --group modern-live-group --topic {topic} --to-earliest --execute")
    shell(f"{GROUPS} --delete-offsets --group modern-live-group --topic {topic}")
    member.stop().ok()
    shell(f"{describe} --state")
    shell(f"{GROUPS} --reset-offsets --group modern-live-group --topic {topic} --to-earliest --execute")
    shell(f"{GROUPS} --delete --group modern-live-group")
    shell(describe)


def test_members_share_and_one_takes_over(broker, create):
    topic = create("modern-shared", 6)
    members = [Member(broker, "modern-sharers", [topic]) for _ in range(3)]
    wait_for("two partitions each", lambda: sizes(members) == [2, 2, 2])
    before = [member.owned() for member in members[:2]]
    members.pop().close()
    wait_for("three partitions each", lambda: sizes(members) == [3, 3])
    assert all(old <= member.owned() for old, member in zip(before, members)), "stays where it is"
    for member in members:
        assert member.errors == []
        member.close()


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_assignors(broker, create, assignor):
    topics = [create(f"modern-{assignor}-{n}", 4) for n in range(2)]
    config = {"group.remote.assignor": assignor}
    members = [Member(broker, f"modern-{assignor}", topics, **config) for _ in range(2)]
    wait_for("four partitions each", lambda: sizes(members) == [4, 4])
    if assignor == "range":
        for member in members:
            of_topics = [{at for topic, at in member.owned() if topic == name} for name in topics]
            assert of_topics[0] == of_topics[1] and sorted(of_topics[0]) in ([0, 1], [2, 3])
    for member in members:
        member.close()


def test_commits_belong_to_members(broker, create, shell):
    topic = create("modern-commits")
    shell(f"kafka-console-producer --topic {topic}", stdin="a\nb\nc\n").ok()
    member = Member(broker, "modern-commits", [topic])
    wait_for("the partition", lambda: sizes([member]) == [1])
    member.consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    stranger = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "modern-commits"})
    with pytest.raises(KafkaException) as refused:
        stranger.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    (committed,) = member.consumer.committed([TopicPartition(topic, 0)], TIMEOUT_S)
    assert committed.offset == 2
    member.close()
    stranger.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    (committed,) = stranger.committed([TopicPartition(topic, 0)], TIMEOUT_S)
    assert committed.offset == 1
    stranger.close()


def test_static_member_keeps_its_partitions(broker, create, shell):
    topic = create("modern-static", 4)
    group = "modern-static"
    config = {"group.instance.id": "stays", "client.id": "stays"}
    stays = Member(broker, group, [topic], **config)
    config = {"group.instance.id": "returns", "client.id": "returns"}
    returns = Member(broker, group, [topic], **config)
    wait_for("two partitions each", lambda: sizes([stays, returns]) == [2, 2])
    before, owned, stays.revoked = epochs(shell, group), returns.owned(), []
    returns.close()
    assert epochs(shell, group)[1]["returns"] == "-2"
    returns = Member(broker, group, [topic], **config)
    wait_for("the same partitions", lambda: returns.owned() == owned)
    assert epochs(shell, group) == before
    assert stays.revoked == []
    stays.close()
    returns.close()


def test_regular_expressions_are_resolved_by_the_broker(broker, create):
    first = create("modern-match-1")
    create("not-modern-match-1")
    member = Member(broker, "modern-regex", ["^modern-match-[0-9]+"])
    wait_for("the first topic", lambda: member.owned() == {(first, 0)})
    second = create("modern-match-22", 2)
    create("modern-match-3x")
    expected = {(first, 0), (second, 0), (second, 1)}
    wait_for("the second topic", lambda: member.owned() == expected)
    member.close()


def test_new_partitions_and_deleted_topics(broker, create):
    topics = [create("modern-grows"), create("modern-goes")]
    member = Member(broker, "modern-topics", topics)
    wait_for("both topics", lambda: sizes([member]) == [2])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_partitions([NewPartitions(topics[0], 3)])[topics[0]].result(TIMEOUT_S)
    wait_for("new partitions", lambda: sizes([member]) == [4])
    admin.delete_topics([topics[1]])[topics[1]].result(TIMEOUT_S)
    wait_for("the other topic only", lambda: member.owned() == {(topics[0], at) for at in range(3)})
    member.close()


@pytest.mark.parametrize("end", ["stop", "kill", pytest.param("move", marks=pytest.mark.oracle)])
def test_members_go_on_after_a_restart(own_broker, tool_host, kind, end):
    """There is no rebalance: the epochs are the same, and no member loses a partition. `move` lets
    Apache Kafka serve the directory, and then Sordini again."""
    if end == "move" and kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    own_broker.settings |= FAST_HEARTBEATS
    broker = own_broker.start()
    shell = Shell(broker, tool_host, None, record=False)
    topic = create_topic(broker, "lasting", 4)
    members = [
        Member(broker, "lasting", [topic], **{"client.id": f"member-{n}"}) for n in range(2)
    ]
    wait_for("two partitions each", lambda: sizes(members) == [2, 2])
    before, owned = epochs(shell, "lasting"), [member.owned() for member in members]
    for member in members:
        member.revoked = []
    for offset, next_kind in enumerate([KAFKA_KIND, SORDINI_KIND] if end == "move" else [kind]):
        if end == "kill":
            broker.kill()
        else:
            broker.stop()
        broker.kind = next_kind
        broker.start()
        wait_for("a commit after the restart", lambda: commits(members[0], offset))
        assert epochs(shell, "lasting") == before
        assert [member.owned() for member in members] == owned
        assert [member.revoked for member in members] == [[], []]
    for member in members:
        member.close()


def commits(member, offset):
    """Whether the member commits this offset of one of its partitions."""
    topic, partition = next(iter(member.owned()))
    place = TopicPartition(topic, partition, offset)
    try:
        member.consumer.commit(offsets=[place], asynchronous=False)
    except KafkaException:
        return False
    return True


def test_configs_of_groups(shell):
    alter = "kafka-configs --alter --entity-type groups --entity-name modern-configured"
    describe = "kafka-configs --describe --entity-type groups --entity-name modern-configured"
    keys = ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms")
    shell(describe)
    shell(f"{describe} --all", sort=True)
    shell(f"{alter} --add-config {keys[0]}=50000,{keys[1]}=6000")
    shell(f"{describe} --all", sort=True)
    for key, value in [(keys[0], "1"), (keys[0], "99999999"), (keys[1], "1"), (keys[1], "99999999"),
                       (keys[0], "some"), ("no.such.key", "1")]:  # fmt: skip
        shell(f"{alter} --add-config {key}={value}")
    shell(f"{alter} --delete-config {keys[0]},{keys[1]}")
    shell(describe)


def test_assignment_interval_changes_while_the_broker_runs(broker, create, shell):
    key = "group.consumer.assignment.interval.ms"
    alter = "kafka-configs --alter --entity-type brokers --entity-default"
    topic = create("modern-interval", 2)
    shell(f"{alter} --add-config {key}=15000", transcript=False).ok()
    try:
        members = [Member(broker, "modern-interval-group", [topic])]
        wait_for("both partitions", lambda: sizes(members) == [2], within=10)
        members.append(Member(broker, "modern-interval-group", [topic]))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert sizes(members) == [2, 0], "the last assignment is newer than the interval"
        shell(f"{alter} --add-config {key}=0", transcript=False).ok()
        wait_for("one partition each", lambda: sizes(members) == [1, 1], within=8)
    finally:
        # The other tests use the same broker.
        shell(f"{alter} --delete-config {key}", transcript=False).ok()
    for member in members:
        member.close()


def test_groups_of_other_types(shell, broker, create):
    """A member of one protocol founds a group. When it is empty, the other protocol takes it over,
    with its offsets."""
    topic = create("modern-types")
    shell(f"kafka-console-producer --topic {topic}", stdin="a\nb\nc\nd\n").ok()
    read = f"kafka-console-consumer --topic {topic} --group modern-types --from-beginning"
    once = "--max-messages 1 --timeout-ms 20000 --command-property"
    shell(f"{read} {once} group.protocol=classic")
    shell(f"{read} {once} group.protocol=consumer")
    listed = shell("kafka-groups --list", transcript=False).ok()
    assert ["modern-types", "Consumer", "consumer"] in [line.split() for line in listed.lines]
    shell(f"{read} {once} group.protocol=classic")
    listed = shell("kafka-groups --list", transcript=False).ok()
    assert ["modern-types", "Classic", "consumer"] in [line.split() for line in listed.lines]


CLASSIC = {
    "group.protocol": "classic",
    "heartbeat.interval.ms": 300,
    "session.timeout.ms": 10_000,
}


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_members_of_both_protocols_share_a_group(broker, create, strategy):
    topic = create(f"modern-mixed-{strategy}", 6)
    group = f"modern-mixed-{strategy}"
    members = [Member(broker, group, [topic])]
    wait_for("all partitions", lambda: sizes(members) == [6])
    config = {**CLASSIC, "partition.assignment.strategy": strategy}
    members += [Member(broker, group, [topic], **config) for _ in range(2)]
    wait_for("two partitions each", lambda: sizes(members) == [2, 2, 2])
    for member in members:
        offsets = [TopicPartition(topic, at, 7) for _, at in member.owned()]
        member.consumer.commit(offsets=offsets, asynchronous=False)
    committed = members[0].consumer.committed([TopicPartition(topic, at) for at in range(6)])
    assert [it.offset for it in committed] == [7] * 6
    members.pop().close()
    wait_for("three partitions each", lambda: sizes(members) == [3, 3])
    members.append(Member(broker, group, [topic]))
    wait_for("two partitions each again", lambda: sizes(members) == [2, 2, 2])
    for member in reversed(members):
        assert member.errors == []
        member.close()


def test_static_member_changes_its_protocol(broker, create, shell):
    """It keeps its partitions, and the others keep theirs."""
    topic = create("modern-mixed-static", 4)
    group = "modern-mixed-static"
    stays = Member(broker, group, [topic])
    config = {"group.instance.id": "changes"}
    changes = Member(broker, group, [topic], **config)
    wait_for("two partitions each", lambda: sizes([stays, changes]) == [2, 2])
    owned, stays.revoked = changes.owned(), []
    changes.close()
    changes = Member(broker, group, [topic], **config, **CLASSIC)
    wait_for("the same partitions as a classic member", lambda: changes.owned() == owned)
    changes.close()
    changes = Member(broker, group, [topic], **config)
    wait_for("the same partitions again", lambda: changes.owned() == owned)
    assert stays.revoked == []
    changes.close()
    stays.close()


@pytest.mark.parametrize("strategy", ["Range", "CooperativeSticky"])
def test_java_member_of_the_classic_protocol_joins(broker, create, shell, strategy):
    topic, group = create(f"modern-java-{strategy}", 2), f"modern-java-{strategy}"
    modern = Member(broker, group, [topic])
    wait_for("both partitions", lambda: sizes([modern]) == [2])
    java = shell.start(
        f"kafka-console-consumer --topic {topic} --group {group} --from-beginning"
        " --command-property group.protocol=classic --command-property heartbeat.interval.ms=300"
        " --command-property auto.commit.interval.ms=200"
        f" --command-property partition.assignment.strategy=org.apache.kafka.clients.consumer.{strategy}Assignor"
    )
    wait_for("one partition", lambda: sizes([modern]) == [1])
    ((_, kept),) = modern.owned()
    producer = Producer({"bootstrap.servers": broker.bootstrap})

    def is_read():
        for partition in range(2):
            producer.produce(topic, b"text", partition=partition)
        producer.flush()
        modern.owned()
        (committed,) = modern.consumer.committed([TopicPartition(topic, 1 - kept)], TIMEOUT_S)
        return committed.offset > 0

    wait_for("the classic member reads and commits", is_read)
    java.stop().ok()
    wait_for("both partitions again", lambda: sizes([modern]) == [2])
    modern.close()
