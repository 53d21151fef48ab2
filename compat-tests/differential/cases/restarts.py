"""State that survives a controlled shutdown and a restart."""

import time

from ..records import batch
from ._bodies import append, fetch, list_offsets, produce
from ._members import Group


def producers(t):
    _producers(t, [int(time.time() * 1000)] * 2)


def producers_of_long_ago(t):
    """Producers whose records are so old that they have expired when the log is loaded."""
    _producers(t, [1_600_000_000_000] * 2)


def _producers(t, timestamps):
    topic = t.topic(1)

    def send(label, sequence, epoch=1, producer_id=7100):
        records = batch(
            [b"a", b"b"],
            timestamps,
            producer_id=producer_id,
            producer_epoch=epoch,
            sequence=sequence,
        )
        t.ask(label, "Produce", 9, produce(t, topic, records))

    for sequence in (0, 2, 4):
        send(f"sequence {sequence}", sequence)
    t.restart()
    t.wait_for(topic, 0)
    send("the newest again", 4)
    send("the one before", 2)
    send("a gap", 9)
    send("next", 6)
    send("an older epoch", 8, epoch=0)
    send("an unknown producer", 5, producer_id=7101)


def logs(t):
    topic = t.topic(1)
    append(t, topic, batch([b"a", b"b"]))
    append(t, topic, batch([b"c"]))
    t.call("DeleteRecords", 2, {"timeoutMs": 5000, "topics": [
        {"name": topic, "partitions": [{"partitionIndex": 0, "offset": 1}]}]})  # fmt: skip
    t.restart()
    t.wait_for(topic, 0)
    for offset in (0, 1, 3, 4):
        t.ask(f"offset {offset}", "Fetch", 11, fetch(t, topic, 11, fetchOffset=offset))
    for asked in (-1, -2, -3, 0):
        t.ask(f"time {asked}", "ListOffsets", 3, list_offsets(topic, asked))
    asked = [{"partition": 0, "leaderEpoch": 0, "currentLeaderEpoch": -1}]
    t.ask("the first epoch", "OffsetForLeaderEpoch", 4,
          {"topics": [{"topic": topic, "partitions": asked}]})  # fmt: skip
    t.ask("a session from before", "Fetch", 12, {"sessionId": 12345, "sessionEpoch": 1})
    t.ask("an old leader epoch", "Fetch", 12, fetch(t, topic, currentLeaderEpoch=0))
    t.ask("an old leader epoch", "ListOffsets", 5, list_offsets(topic, -1, epoch=0))


def groups(t):
    topic = t.topic(2)
    stable, preparing, empty = (Group(t, it) for it in ("stable", "preparing", "empty"))
    a, b = stable.member("a"), stable.member("b", "i")
    stable.gather(a, b)
    rows = [{"partitionIndex": 0, "committedOffset": 5, "committedLeaderEpoch": 3,
             "committedMetadata": "a text"}, {"partitionIndex": 1, "committedOffset": 6}]  # fmt: skip
    a.commit("before", topic, topics=[{"name": topic, "partitions": rows}])
    c, d = preparing.member("c"), preparing.member("d")
    preparing.gather(c)
    d.send_join(3)
    preparing.wait("PreparingRebalance")
    e = empty.member("e")
    empty.gather(e)
    e.commit("before", topic)
    e.leave("before")
    t.restart()
    t.wait_for(topic, 0)
    everyone = (a, b, c, e)
    for group in (stable, preparing, empty):
        t.find_coordinator(group.id)
        group.describe(f"{group.name} after")
        t.ask(f"{group.name} has", "OffsetFetch", 8,
              {"groups": [{"groupId": group.id, "topics": None}]})  # fmt: skip
    for member in everyone:
        member.reconnect().heartbeat("after")
        member.commit("after", topic)
    b.sync("its part again")
    back = stable.member("back", "i")
    back.join("the static member is back")
    b.heartbeat("who it was")
    back.sync("the same part")
    a.heartbeat("all goes on")
    back.leave("leaves")
    a.join("a new generation")
    e.member_id = ""
    e.join("the first again", 3)
