"""The consumer protocol is not among the rebalance protocols of the broker."""

from ._consumers import ConsumerGroup

SETTINGS = {"group_coordinator_rebalance_protocols": "classic"}


def refused(t):
    group = ConsumerGroup(t)
    for version in (0, 1):
        group.consumer("a", "t").join("joins", version)
        group.consumer("a", "t").ask("nothing right", version, groupId="", memberId="")
        t.ask("describe", "ConsumerGroupDescribe", version, {"groupIds": [group.id, ""]})
