"""`group.consumer.migration.policy` is downgrade."""

from . import group_conversions
from ._conversions import policy_decides

SETTINGS = {**group_conversions.SETTINGS, "group_consumer_migration_policy": "Downgrade"}


def refused_and_allowed(t):
    policy_decides(t)
