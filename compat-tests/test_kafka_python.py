"""kafka-python, a client in pure Python."""

import time

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import MessageSizeTooLargeError, TopicAlreadyExistsError

TIMEOUT_S = 30


@pytest.fixture(scope="module")
def admin(broker):
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield admin
    admin.close()


@pytest.fixture
def topic(request):
    return "kp-" + request.node.name.replace("[", "-").replace("]", "").replace("_", "-")


def produce(broker, topic, values, **config):
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, **config)
    sent = [
        producer.send(topic, value=value, key=b"k", headers=[("h", b"1")], partition=0)
        for value in values
    ]
    producer.flush(TIMEOUT_S)
    offsets = [future.get(TIMEOUT_S).offset for future in sent]
    producer.close()
    return offsets


def consumer(broker, **config):
    return KafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=TIMEOUT_S * 1000,
        **config,
    )


def take(reader, count):
    return [next(reader) for _ in range(count)]


@pytest.mark.parametrize("codec", [None, "gzip", "lz4", "snappy", "zstd"])
def test_round_trip(broker, topic, codec):
    values = [f"v{n}".encode() for n in range(200)]
    offsets = produce(broker, topic, values, compression_type=codec, acks="all")
    assert offsets == list(range(200))
    reader = consumer(broker)
    reader.assign([TopicPartition(topic, 0)])
    messages = take(reader, 200)
    assert [m.value for m in messages] == values
    assert (messages[0].key, list(messages[0].headers)) == (b"k", [("h", b"1")])
    reader.close()


def test_group_resumes(broker, topic):
    produce(broker, topic, [str(n).encode() for n in range(10)])
    first = consumer(broker, group_id="kp-group")
    first.subscribe([topic])
    take(first, 10)
    first.commit()
    first.close()
    produce(broker, topic, [b"later"])
    second = consumer(broker, group_id="kp-group")
    second.subscribe([topic])
    assert next(second).offset == 10
    assert second.committed(TopicPartition(topic, 0)) == 10
    second.close()


def test_offsets(broker, topic):
    produce(broker, topic, [str(n).encode() for n in range(10)])
    partition = TopicPartition(topic, 0)
    reader = consumer(broker)
    assert reader.beginning_offsets([partition]) == {partition: 0}
    assert reader.end_offsets([partition]) == {partition: 10}
    assert reader.offsets_for_times({partition: 1})[partition].offset == 0
    reader.assign([partition])
    reader.seek(partition, 7)
    assert next(reader).offset == 7
    reader.close()


def test_message_too_large(broker, admin, topic):
    admin.create_topics(
        [NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})]
    )
    time.sleep(0.5)
    with pytest.raises(MessageSizeTooLargeError):
        produce(broker, topic, [b"x" * 5000])


def test_admin(admin, topic):
    admin.create_topics([NewTopic(topic, 2, 1)])
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics([NewTopic(topic, 2, 1)])
    deadline = time.monotonic() + TIMEOUT_S
    while topic not in admin.list_topics():
        assert time.monotonic() < deadline
    admin.delete_topics([topic])
    while topic in admin.list_topics():
        assert time.monotonic() < deadline
