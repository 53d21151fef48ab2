"""Configs and records of topics, through librdkafka."""

import time

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

TIMEOUT_S = 60


def set_configs(node, topic, configs):
    """Sets configs of a topic. `node` is a broker or a cluster."""
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in configs.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


def offsets_partition(group, count):
    """Returns the partition of __consumer_offsets that a group is on, if the topic has `count`."""
    number = 0
    for char in group:
        number = (31 * number + ord(char)) & 0xFFFFFFFF
    signed = number - (1 << 32) if number >> 31 else number
    return abs(signed) % count


def read_to_end(node, places, isolation="read_committed"):
    """Yields the messages of partitions, each from its start to its end. `node` is a broker or a
    cluster, and a place is (topic, partition)."""
    consumer = Consumer(
        {
            "bootstrap.servers": node.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in places])
    left, deadline = set(places), time.monotonic() + TIMEOUT_S
    while left:
        assert time.monotonic() < deadline, f"no end of {left}"
        for message in consumer.consume(1000, timeout=0.1):
            if message.error() is None:
                yield message
            elif message.error().code() == KafkaError._PARTITION_EOF:
                left.discard((message.topic(), message.partition()))
    consumer.close()
