"""Groups with members that change between the classic and the consumer protocol (KIP-848), with
librdkafka: each value of `group.consumer.migration.policy`, and restarts of the broker."""

import time

import pytest
from confluent_kafka import ConsumerGroupType
from confluent_kafka.admin import AdminClient
from harness.broker import FAST_HEARTBEATS
from test_consumer_protocol import TIMEOUT_S, Member, create_topic, sizes, wait_for

_GROUP = "converts"
_CLASSIC, _CONSUMER = ConsumerGroupType.CLASSIC, ConsumerGroupType.CONSUMER


@pytest.fixture
def policy_broker(own_broker):
    """Starts a broker with a value of `group.consumer.migration.policy`."""

    def start(policy):
        own_broker.settings |= FAST_HEARTBEATS
        own_broker.settings["group.consumer.migration.policy"] = policy
        own_broker.start()
        create_topic(own_broker, "converted", 4)
        return own_broker

    return start


def member(broker, protocol, **config):
    if protocol == "classic":
        config = {"heartbeat.interval.ms": 300, "partition.assignment.strategy": "range", **config}
    return Member(broker, _GROUP, ["converted"], **{"group.protocol": protocol, **config})


def type_of_group(broker):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    found = []

    def is_listed():
        # After a restart, the coordinator may still be loading.
        listed = admin.list_consumer_groups().result(TIMEOUT_S)
        found[:] = [it for it in listed.valid if it.group_id == _GROUP]
        return found and not listed.errors

    wait_for("the group is listed", is_listed)
    return found[0].type


def shares_evenly(members):
    share = 4 // len(members)
    return lambda: sizes(members) == [share] * len(members)


def _after(seconds, polled):
    """Lets a member work for this long."""
    until = time.monotonic() + seconds
    return lambda: polled.owned() is None or time.monotonic() > until


def close(members):
    for it in members:
        it.close()


@pytest.mark.parametrize("instances", [False, True])
def test_rolling_change_of_all_members(policy_broker, instances):
    """With the range assignor: after its first rebalance, librdkafka's cooperative-sticky assignor
    has data in its assignments, and such a group cannot become a consumer group."""
    broker = policy_broker("Bidirectional")

    def join(protocol, place):
        config = {"group.instance.id": f"member-{place}"} if instances else {}
        if protocol == "classic":
            config["partition.assignment.strategy"] = "range"
        return member(broker, protocol, **config)

    members = [join("classic", place) for place in range(2)]
    wait_for("two partitions each", shares_evenly(members))
    assert type_of_group(broker) == _CLASSIC
    for protocol, types in (("consumer", [_CONSUMER, _CONSUMER]), ("classic", [_CONSUMER, _CLASSIC])):
        for place, expected in enumerate(types):
            members[place].close()
            members[place] = join(protocol, place)
            wait_for(f"{protocol} member {place} has its share", shares_evenly(members))
            assert type_of_group(broker) == expected
    close(members)


def test_last_consumer_leaves(policy_broker):
    """The classic member then has all partitions in a classic group."""
    broker = policy_broker("bidirectional")
    classic = member(broker, "classic")
    wait_for("all partitions", shares_evenly([classic]))
    consumer = member(broker, "consumer")
    wait_for("two partitions each", shares_evenly([classic, consumer]))
    assert type_of_group(broker) == _CONSUMER
    consumer.close()
    wait_for("all partitions", shares_evenly([classic]))
    assert type_of_group(broker) == _CLASSIC
    classic.close()


@pytest.mark.parametrize("policy", ["disabled", "DOWNGRADE"])
def test_consumers_do_not_join_classic_groups(policy_broker, policy):
    broker = policy_broker(policy)
    classic = member(broker, "classic")
    wait_for("all partitions", shares_evenly([classic]))
    consumer = member(broker, "consumer")
    wait_for("refusal", lambda: consumer.owned() or consumer.errors)
    assert set(consumer.errors) == {"_FATAL"}
    assert type_of_group(broker) == _CLASSIC
    assert classic.owned() == {("converted", at) for at in range(4)}
    close([classic, consumer])


def test_classic_members_do_not_join_consumer_groups_if_conversions_are_disabled(policy_broker):
    broker = policy_broker("Disabled")
    consumer = member(broker, "consumer")
    wait_for("all partitions", shares_evenly([consumer]))
    classic = member(broker, "classic")
    wait_for("refusal", lambda: classic.owned() or classic.errors)
    assert set(classic.errors) == {"INCONSISTENT_GROUP_PROTOCOL"}
    assert consumer.owned() == {("converted", at) for at in range(4)}
    close([classic, consumer])


def test_classic_member_of_a_consumer_group_goes_back_only_if_downgrades_are_allowed(policy_broker):
    """As in Apache Kafka, it does not get the partitions of the last consumer otherwise."""
    broker = policy_broker("upgrade")
    consumer = member(broker, "consumer")
    wait_for("all partitions", shares_evenly([consumer]))
    classic = member(broker, "classic")
    wait_for("two partitions each", shares_evenly([classic, consumer]))
    consumer.close()
    wait_for("heartbeats", _after(3, classic))
    assert type_of_group(broker) == _CONSUMER
    assert len(classic.owned()) == 2
    classic.close()


def test_consumer_group_becomes_a_classic_group_but_not_the_reverse(policy_broker):
    broker = policy_broker("downgrade")
    consumer = member(broker, "consumer")
    wait_for("all partitions", shares_evenly([consumer]))
    classic = member(broker, "classic")
    wait_for("two partitions each", shares_evenly([classic, consumer]))
    consumer.close()
    wait_for("all partitions", shares_evenly([classic]))
    assert type_of_group(broker) == _CLASSIC
    classic.close()


@pytest.mark.parametrize("kills", [False, True], ids=["stopped", "killed"])
def test_restarts_between_conversions(policy_broker, kills):
    broker = policy_broker("bidirectional")

    def restart():
        broker.kill() if kills else broker.stop()
        broker.start()

    members = [member(broker, "classic")]
    wait_for("all partitions", shares_evenly(members))
    members.append(member(broker, "consumer"))
    wait_for("two partitions each", shares_evenly(members))
    restart()
    assert type_of_group(broker) == _CONSUMER
    members[1].close()
    wait_for("all partitions", shares_evenly(members[:1]))
    restart()
    assert type_of_group(broker) == _CLASSIC
    members[1] = member(broker, "consumer")
    wait_for("two partitions each again", shares_evenly(members))
    assert type_of_group(broker) == _CONSUMER
    close(members)
