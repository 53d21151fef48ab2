"""`group.consumer.migration.policy` is upgrade. The first rebalance of a group takes a while."""

from . import group_conversions
from ._consumers import topic
from ._conversions import ConvertedGroup, policy_decides

SETTINGS = {
    **group_conversions.SETTINGS,
    "group_consumer_migration_policy": "Upgrade",
    "group_initial_rebalance_delay_ms": "1500",
}


def refused_and_allowed(t):
    policy_decides(t)


def first_join_phase(t):
    """The group has no protocol yet."""
    name = topic(t, 2)
    group = ConvertedGroup(t, name)
    a = group.classic("a", name)
    a.send_join(3, a.subscribing())
    group.wait("PreparingRebalance")
    m = group.consumer("m", name)
    m.join("joins")
    a.answer("waited")
    group.describe("then")
