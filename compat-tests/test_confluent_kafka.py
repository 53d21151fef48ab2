"""confluent-kafka, the Python client on librdkafka."""

import time

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

DEADLINE_S = 30


@pytest.fixture(scope="module")
def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap})


@pytest.fixture
def topic(admin, request):
    """A topic with one partition that only this test uses, once its leader serves it."""
    name = "confluent-" + request.node.name.replace("[", "-").replace("]", "").replace("_", "-")
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)
    wait_for_leader(admin, name)
    return name


def wait_for_leader(admin, name):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        partitions = admin.list_topics(name, timeout=DEADLINE_S).topics[name].partitions
        if partitions and all(partition.leader == 1 for partition in partitions.values()):
            return
        assert time.monotonic() < deadline, "no leader"
        time.sleep(0.1)


def produce(broker, topic, values, **config):
    failures = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, **config})
    for n, value in enumerate(values):
        producer.produce(
            topic, value, key=f"k{n}", headers=[("h", b"1"), ("h", None)],
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )  # fmt: skip
    assert producer.flush(DEADLINE_S) == 0
    return failures


def consumer(broker, group, **config):
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **config,
        }
    )


def read(reader, count):
    messages = []
    deadline = time.monotonic() + DEADLINE_S
    while len(messages) < count and time.monotonic() < deadline:
        for message in reader.consume(count - len(messages), timeout=0.5):
            if message.error() is None:
                messages.append(message)
    assert len(messages) == count
    return messages


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(broker, topic, codec):
    values = [f"v{n}".encode() for n in range(500)]
    idempotent = {"enable.idempotence": True, "compression.type": codec}
    assert produce(broker, topic, values, **idempotent) == []
    reader = consumer(broker, f"{topic}-group")
    reader.subscribe([topic])
    messages = read(reader, 500)
    assert [m.value() for m in messages] == values
    assert [m.offset() for m in messages] == list(range(500))
    assert messages[0].headers() == [("h", b"1"), ("h", None)]
    assert messages[7].key() == b"k7"
    reader.close()


def test_group_resumes(broker, topic):
    produce(broker, topic, [str(n) for n in range(20)])
    first = consumer(broker, "confluent-resumes")
    first.subscribe([topic])
    last = read(first, 12)[-1]
    first.commit(message=last, asynchronous=False)
    first.close()
    second = consumer(broker, "confluent-resumes")
    second.subscribe([topic])
    assert read(second, 8)[0].offset() == 12
    committed = second.committed([TopicPartition(topic, 0)], DEADLINE_S)
    assert committed[0].offset == 12
    second.close()


def test_two_members_share(broker, admin):
    name = "confluent-shared"
    admin.create_topics([NewTopic(name, 4, 1)])[name].result(20)
    wait_for_leader(admin, name)
    strategy = {"partition.assignment.strategy": "cooperative-sticky"}
    members = [consumer(broker, "confluent-sharers", **strategy) for _ in range(2)]
    for member in members:
        member.subscribe([name])
    deadline = time.monotonic() + DEADLINE_S
    while [len(member.assignment()) for member in members] != [2, 2]:
        assert time.monotonic() < deadline, [member.assignment() for member in members]
        for member in members:
            member.poll(0.2)
    for member in members:
        member.close()


def test_static_member(broker, topic):
    produce(broker, topic, ["v"])
    for _ in range(2):
        member = consumer(broker, "confluent-static", **{"group.instance.id": "only"})
        member.subscribe([topic])
        assert read(member, 1)[0].value() == b"v"
        member.close()


def test_seek_and_watermarks(broker, topic):
    produce(broker, topic, [str(n) for n in range(10)])
    reader = consumer(broker, "confluent-seek")
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    read(reader, 10)
    reader.seek(TopicPartition(topic, 0, 6))
    assert [m.offset() for m in read(reader, 4)] == [6, 7, 8, 9]
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), DEADLINE_S) == (0, 10)
    (found,) = reader.offsets_for_times([TopicPartition(topic, 0, 1)], DEADLINE_S)
    assert found.offset == 0
    reader.close()


def test_message_too_large(broker, admin):
    name = "confluent-small"
    small = NewTopic(name, 1, 1, config={"max.message.bytes": "1000"})
    admin.create_topics([small])[name].result(20)
    wait_for_leader(admin, name)
    (failure,) = produce(broker, name, [b"x" * 5000])
    assert failure.code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_admin_topics(admin, topic):
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(20)
    admin.delete_topics([topic])[topic].result(20)
    with pytest.raises(KafkaException) as refused:
        admin.delete_topics([topic])[topic].result(20)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_admin_configs(admin, topic):
    change = ConfigEntry("retention.ms", "1234", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(20)
    asked = ConfigResource(ResourceType.TOPIC, topic)
    deadline = time.monotonic() + DEADLINE_S
    while admin.describe_configs([asked])[asked].result(20)["retention.ms"].value != "1234":
        assert time.monotonic() < deadline


def test_admin_groups(broker, admin, topic):
    produce(broker, topic, ["v"])
    group = "confluent-administered"
    member = consumer(broker, group)
    member.subscribe([topic])
    member.commit(message=read(member, 1)[0], asynchronous=False)
    described = admin.describe_consumer_groups([group])[group].result(20)
    assert (described.state.name, len(described.members)) == ("STABLE", 1)
    member.close()
    listed = admin.list_consumer_groups().result(20)
    assert group in [g.group_id for g in listed.valid]
    asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])]
    offsets = admin.list_consumer_group_offsets(asked)[group].result(20)
    assert offsets.topic_partitions[0].offset == 1
    admin.delete_consumer_groups([group])[group].result(20)


def test_admin_offsets_and_records(broker, admin, topic):
    produce(broker, topic, [str(n) for n in range(10)])
    partition = TopicPartition(topic, 0)
    deleted = admin.delete_records([TopicPartition(topic, 0, 4)])[partition].result(20)
    assert deleted.low_watermark == 4
    for spec, expected in ((OffsetSpec.earliest(), 4), (OffsetSpec.latest(), 10)):
        committed = IsolationLevel.READ_COMMITTED
        found = admin.list_offsets({partition: spec}, isolation_level=committed)
        assert found[partition].result(20).offset == expected


def test_admin_cluster(admin):
    cluster = admin.describe_cluster().result(20)
    assert len(cluster.cluster_id) == 22
    assert [node.id for node in cluster.nodes] == [1]
