"""`group.consumer.migration.policy` is upgrade."""

from . import group_conversions
from ._conversions import policy_decides

SETTINGS = {**group_conversions.SETTINGS, "group_consumer_migration_policy": "Upgrade"}


def refused_and_allowed(t):
    policy_decides(t)
