"""Replicas, each of which compacts its log on its own: a follower that was away during many rounds,
and a replica that begins with a copy of a compacted log.
"""

import pytest
from compacting import (
    IDEMPOTENT,
    OFFSETS,
    TRANSACTION_STATE,
    Writers,
    create,
    lead,
    leaves_and_leads,
    log_of,
    sequences,
    step,
)
from harness.segments import batches
from harness.topics import set_configs

SETTINGS = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "log.cleaner.backoff.ms": "50",
    "log.segment.delete.delay.ms": "100",
}


@pytest.fixture
def cleaning(new_cluster):
    """A cluster whose internal topics are led by node 1 or 2, and followed by the others."""
    cluster = new_cluster(**SETTINGS).start()
    create(cluster, OFFSETS, 1, [1, 2, 3])
    create(cluster, TRANSACTION_STATE, 1, [2, 1, 3], internal_segment_bytes="300")
    return cluster


def test_a_follower_returns_after_many_rounds(cleaning, tools):
    create(cleaning, "away", 4, [1, 2, 3])
    writers = Writers(cleaning, "away")
    for _ in range(3):
        step(writers, cleaning.running())
    others, away = [cleaning[1], cleaning[2]], cleaning[3]
    leaves_and_leads(writers, tools(cleaning), away.kill, away, others, rounds=10)


def test_a_new_replica_copies_a_compacted_log(cleaning, tools):
    """Byte by byte: with batches that have lost their records, and with delete horizons."""
    run = tools(cleaning)
    create(cleaning, "copied", 4, [1, 2])
    writers = Writers(cleaning, "copied")
    for _ in range(3):
        writers.write(writers.quiet, IDEMPOTENT, [("hot-0", "quiet")])
        step(writers, [cleaning[1], cleaning[2]])
    # No log is compacted any more, so that the copy stays as it is.
    set_configs(cleaning, "copied", {"min.cleanable.dirty.ratio": "1"})
    known = sequences(run, "copied", cleaning[1])
    lead(cleaning, run, ["copied"], [cleaning[3], cleaning[1], cleaning[2]])
    for partition in range(4):
        original, copy = (log_of(cleaning[node], "copied", partition) for node in (1, 3))
        assert original == copy
    logs = (log_of(cleaning[3], "copied", partition) for partition in range(4))
    found = [batch for log in logs for batch in batches(log)]
    assert {batch.is_control for batch in found if batch.has_horizon} == {False, True}
    assert any(batch.count == 0 and not batch.is_control for batch in found)
    assert sequences(run, "copied", cleaning[3]) == known
    writers.check(cleaning[3])
