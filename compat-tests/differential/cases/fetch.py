"""Fetch without sessions: offsets, limits of bytes, and errors."""

import threading
import time

from ..records import GZIP, batch
from ._bodies import append, fetch

_UNKNOWN_ID = "11111111-2222-3333-4444-555555555555"


def _filled(t, batches=3, size=100):
    """Creates a topic with batches of two records each."""
    topic = t.topic(1)
    for at in range(batches):
        append(t, topic, batch([b"%d" % at * size, b"y"]))
    return topic


def every_version(t):
    topic = _filled(t, 1, 3)
    t.ask_all("from the start", "Fetch", lambda v: fetch(t, topic, v))
    t.ask_all("read committed", "Fetch", lambda v: fetch(t, topic, v, isolationLevel=1))
    t.ask_all("at the end", "Fetch", lambda v: fetch(t, topic, v, fetchOffset=2))
    t.ask_all("past the end", "Fetch", lambda v: fetch(t, topic, v, fetchOffset=3))


def offsets(t):
    topic = _filled(t)
    for offset in (1, 2, 3, 5, 6, 7, -1, -2, 2**62):
        t.ask(f"offset {offset}", "Fetch", 12, fetch(t, topic, fetchOffset=offset))
        t.ask(f"offset {offset}", "Fetch", 17, fetch(t, topic, 17, fetchOffset=offset))
    empty = t.topic(1)
    for offset in (0, 1, -1):
        t.ask(f"of an empty log, offset {offset}", "Fetch", 12, fetch(t, empty, fetchOffset=offset))


def behind_the_log_start(t):
    topic = _filled(t)
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 3}]}]})  # fmt: skip
    for offset in (0, 2, 3, 4, 6):
        t.ask(f"offset {offset}", "Fetch", 12, fetch(t, topic, fetchOffset=offset))


def in_a_compressed_batch(t):
    topic = t.topic(1)
    append(t, topic, batch([b"a", b"b", b"c", b"d"], attributes=GZIP))
    for offset in (1, 3, 4):
        t.ask(f"offset {offset}", "Fetch", 12, fetch(t, topic, fetchOffset=offset))


def partition_limits(t):
    topic = _filled(t)
    for limit in (0, 1, 60, 171, 172, 173, 300, 344, 400, 600, -1):
        t.ask(f"partition limit {limit}", "Fetch", 12, fetch(t, topic, partitionMaxBytes=limit))
        t.ask(f"total limit {limit}", "Fetch", 12, fetch(t, topic, maxBytes=limit))
    t.ask("both at 1", "Fetch", 12, fetch(t, topic, maxBytes=1, partitionMaxBytes=1))
    t.ask("both at 0", "Fetch", 12, fetch(t, topic, maxBytes=0, partitionMaxBytes=0))
    t.ask("in the middle, limited", "Fetch", 12,
          fetch(t, topic, fetchOffset=3, partitionMaxBytes=200))  # fmt: skip


def limits_over_partitions(t):
    topic = t.topic(4)
    for partition in range(3):
        for _ in range(2):
            append(t, topic, batch([b"z" * 100]), partition)
    both = [{"partition": it} for it in range(4)]
    for limit in (0, 1, 170, 180, 350, 400, 520, 2000):
        t.ask(f"total limit {limit}", "Fetch", 12, fetch(t, topic, partitions=both, maxBytes=limit))
    first_empty = [{"partition": 3}, {"partition": 1}, {"partition": 0}]
    t.ask("the first is empty", "Fetch", 12, fetch(t, topic, partitions=first_empty, maxBytes=1))
    small = [{"partition": 1, "partitionMaxBytes": 1}, {"partition": 0, "partitionMaxBytes": 1}]
    t.ask("each limited to 1", "Fetch", 12, fetch(t, topic, partitions=small))
    none = [{"partition": 1, "partitionMaxBytes": 0}, {"partition": 0}]
    t.ask("the first limited to 0", "Fetch", 12, fetch(t, topic, partitions=none))
    bad = [{"partition": 9}, {"partition": 0}, {"partition": 1, "fetchOffset": 99}]
    t.ask("two errors", "Fetch", 12, fetch(t, topic, partitions=bad))
    twice = [{"partition": 0}, {"partition": 1}, {"partition": 0, "fetchOffset": 1}]
    t.ask("a partition twice", "Fetch", 12, fetch(t, topic, partitions=twice))


def unknown_partitions(t):
    topic = t.topic(1)
    for version in (4, 11, 12, 13, 17):
        t.ask("partition 1", "Fetch", version, fetch(t, topic, version, partition=1))
        t.ask("partition -1", "Fetch", version, fetch(t, topic, version, partition=-1))
    for version in (4, 12):
        for name in ("none-such", "", "bad name"):
            t.ask(f"topic {name!r}", "Fetch", version, fetch(t, name, version))
    for version in (13, 15, 18):
        t.ask("unknown id", "Fetch", version, fetch(t, "", version, topic_id=_UNKNOWN_ID))
        t.ask("zero id", "Fetch", version,
              fetch(t, "", version, topic_id="00000000-0000-0000-0000-000000000000"))  # fmt: skip
    t.ask("nothing", "Fetch", 12, {"maxWaitMs": 0, "topics": []})
    t.ask("no partitions", "Fetch", 12, {"maxWaitMs": 0, "topics": [{"topic": topic}]})


def leader_epochs(t):
    topic = _filled(t, 1, 3)
    for version in (9, 12, 16):
        for epoch in (-1, 0, 1, -2):
            t.ask(f"epoch {epoch}", "Fetch", version,
                  fetch(t, topic, version, currentLeaderEpoch=epoch))  # fmt: skip
        t.ask("epoch 1 and offset 99", "Fetch", version,
              fetch(t, topic, version, currentLeaderEpoch=1, fetchOffset=99))  # fmt: skip


def last_fetched_epochs(t):
    topic = _filled(t, 1, 3)
    for version in (12, 16):
        for epoch, offset in ((0, 2), (0, 0), (0, 1), (0, 3), (1, 2), (5, 0), (-1, 2), (-2, 0)):
            t.ask(f"epoch {epoch}, offset {offset}", "Fetch", version,
                  fetch(t, topic, version, lastFetchedEpoch=epoch, fetchOffset=offset))  # fmt: skip
    empty = t.topic(1)
    for epoch in (0, 1):
        t.ask(f"of an empty log, epoch {epoch}", "Fetch", 12,
              fetch(t, empty, lastFetchedEpoch=epoch))  # fmt: skip


def replicas(t):
    topic = _filled(t, 1, 3)
    for version in (4, 12, 14, 16):
        for replica in (1, 2, 77, -1, -2, -3):
            t.ask(f"replica {replica}", "Fetch", version,
                  fetch(t, topic, version, replicaId=replica))  # fmt: skip


def isolation_levels(t):
    topic = _filled(t, 1, 3)
    for version in (4, 12):
        for level in (0, 1, 2, -1):
            body = fetch(t, topic, version, isolationLevel=level)
            t.ask(f"level {level}", "Fetch", version, body)


def waiting(t):
    """Fetches that wait. The transcript has their times in units of half a second."""
    topic = _filled(t, 1, 3)

    def timed(label, **fields):
        since = time.monotonic()
        answer = t.call("Fetch", 12, fetch(t, topic, **fields))
        halves = int((time.monotonic() - since) * 2)
        t.note(label, {"halfSeconds": halves, "answer": answer})

    timed("at the end, 600 ms", fetchOffset=2, maxWaitMs=600, minBytes=1)
    timed("at the end, no bytes wanted", fetchOffset=2, maxWaitMs=3000, minBytes=0)
    timed("more wanted than is there", maxWaitMs=600, minBytes=5000)
    timed("more wanted than may be sent", maxWaitMs=600, minBytes=5000, maxBytes=20)
    timed("an error", fetchOffset=99, maxWaitMs=3000, minBytes=1)
    timed("enough", maxWaitMs=3000, minBytes=50)
    timed("limited", maxWaitMs=600, minBytes=70, partitionMaxBytes=10)
    timed("negative wait", fetchOffset=2, maxWaitMs=-5, minBytes=1)
    other = t.connect()
    timer = threading.Timer(0.1, other.request, ("Produce", 9, {
        "acks": 1, "timeoutMs": 1000, "topicData": [
            {"name": topic, "partitionData": [{"index": 0, "records": batch([b"new"])}]}]}))  # fmt: skip
    timer.start()
    timed("records come", fetchOffset=2, maxWaitMs=8000, minBytes=1)
    timer.join()
    other.close()
