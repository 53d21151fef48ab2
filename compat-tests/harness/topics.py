"""Configs of topics, through the admin client of librdkafka."""

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
