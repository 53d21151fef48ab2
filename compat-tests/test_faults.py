"""Kills the broker in a loop under the load of stock clients.

The checks use the responses that each client got: every acknowledged record is at its offset, no
record is there twice or out of order, and a group continues from its committed offsets.
`FAULT_SECONDS` sets the length of the loop, and `FAULT_SEED` repeats one.
"""

import os
import random
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from harness.history import check, read_all
from harness.loads import ConsoleLoad, Group, JavaLoad, LibrdkafkaLoad, wait_until_begun
from harness.programs import CLOSING_LINES

SECONDS = float(os.environ.get("FAULT_SECONDS", "18"))
SEED = int(os.environ.get("FAULT_SEED", str(time.time_ns() % 1_000_000)))
UP_S = (0.15, 1.2)
PARTITIONS = {"by-console": 1, "by-java": 3, "by-librdkafka": 2, "by-librdkafka-lz4": 2}
# Configs with which segments roll during the loop.
CONFIGS = {"segment.ms": "700", "index.interval.bytes": "500"}


def create_topics(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    flushed = {"flush.messages": "1", **CONFIGS}
    topics = [
        NewTopic(name, count, 1, config=flushed if name.endswith("lz4") else CONFIGS)
        for name, count in PARTITIONS.items()
    ]
    for made in admin.create_topics(topics).values():
        made.result(30)


@pytest.fixture
def at_work(own_broker):
    """A broker for this test alone, with all clients at work."""
    bootstrap = own_broker.start().bootstrap
    create_topics(bootstrap)
    loads = [
        JavaLoad(bootstrap, "by-java", PARTITIONS["by-java"]),
        ConsoleLoad(bootstrap, "by-console"),
        LibrdkafkaLoad(bootstrap, "by-librdkafka", 2),
        LibrdkafkaLoad(bootstrap, "by-librdkafka-lz4", 2, **{"compression.type": "lz4"}),
    ]
    group = Group(bootstrap, "by-librdkafka")
    yield loads, group
    group.end()
    for load in loads:
        load.kill()


def test_kills_under_stock_clients(own_broker, at_work):
    loads, group = at_work
    wait_until_begun(loads)
    chance = random.Random(SEED)
    print(f"FAULT_SEED={SEED}")
    kills, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until or kills < 5:
        time.sleep(chance.uniform(*UP_S))
        own_broker.kill()
        own_broker.start()
        kills += 1
    for load in loads:
        load.end()
    totals = {}
    for load in loads:
        found = read_all(own_broker.bootstrap, load.topic, load.partitions)
        acknowledged, sent = load.told()
        given_up = load.given_up() if isinstance(load, ConsoleLoad) else 0
        check(load.topic, load.partitions, found, acknowledged, sent, given_up)
        totals[load.topic] = sent - given_up
        if load.topic == "by-librdkafka":
            group.catch_up({partition: len(records) for partition, records in found.items()})
    group.end()
    assert group.problems == []
    assert own_broker.stop() in (0, 143)
    assert "panicked" not in (own_broker.dir / "broker.log").read_text(errors="replace")
    CLOSING_LINES.append(
        f"faults: {kills} kills, acknowledged {totals}, "
        f"group handed out {group.records} in {group.commits} commits"
    )
    assert min(totals.values()) > 100, "there was a load"
