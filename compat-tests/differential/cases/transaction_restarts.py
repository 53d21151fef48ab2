"""What a coordinator loads from its log: exhausted epochs, open and prepared transactions, bytes
that are no records of it."""

import time

from .. import records
from ._bodies import fetch
from ._transactions import SETTINGS as SHARED
from ._transactions import (
    Producer,
    ask_states,
    find_transaction_coordinator,
    state_key,
    state_value,
    store_state,
)

SETTINGS = SHARED
_PARTITIONS = int(SETTINGS["transaction_state_log_num_partitions"])
_CONTROL = 0x20
_EMPTY, _ONGOING, _PREPARE_COMMIT, _, _COMPLETE_COMMIT, _COMPLETE_ABORT = range(6)


class _Stored(Producer):
    """A producer whose state is a record that the case writes."""

    def __init__(self, t, name, producer_id, epoch, state, *partitions, **fields):
        super().__init__(t, name, starts=False)
        self.learn({"errorCode": 0, "producerId": producer_id, "producerEpoch": epoch})
        value = state_value(producer_id, epoch, state, partitions, **fields)
        store_state(t, _PARTITIONS, self.id, (state_key(self.id), value))


def _restart(t, *producers):
    t.restart()
    for producer in producers:
        find_transaction_coordinator(t, producer.id)


def _note_log(t, label, topic):
    """Adds the batches of a partition to the transcript. The content of markers is left out: the
    coordinator's epoch in it counts the restarts."""
    answer = t.call("Fetch", 12, fetch(t, topic))
    batches = records.describe(answer["responses"][0]["partitions"][0]["records"])
    for it in batches:
        if it["attributes"] & _CONTROL:
            del it["records"]
    t.note(label, batches)


def exhausted_epochs(t):
    """From epoch 32766 on, a producer gets a new producer id."""
    topic = t.topic(1)
    now = int(time.time() * 1000)

    def stored(name, epoch, state=_COMPLETE_COMMIT, *partitions):
        producer_id = 900_000_000 + len(everyone)
        everyone[name] = _Stored(t, name, producer_id, epoch, state, *partitions, started=now)

    everyone = {}
    for epoch in (32764, 32765, 32766, 32767):
        for name in ("init", "expected", "end", "end of nothing", "fence", "old end"):
            state = _COMPLETE_COMMIT if name in ("init", "expected", "end of nothing") else _ONGOING
            partitions = [(topic, 0)] if state == _ONGOING else []
            stored(f"{name} {epoch}", epoch, state, *partitions)
    _restart(t, *everyone.values())
    t.wait_for(topic, 0)
    for epoch in (32764, 32765, 32766, 32767):
        p = everyone[f"init {epoch}"]
        for number in range(4):
            p.learn(t.ask(f"{p.name}, {number}", "InitProducerId", 5, p.init_body()))
        p = everyone[f"expected {epoch}"]
        first = {"producerId": p.producer_id, "producerEpoch": p.epoch}
        for number in range(4):
            expected = p.init_body(producerId=p.producer_id, producerEpoch=p.epoch)
            p.learn(t.ask(f"{p.name}, {number}", "InitProducerId", 5, expected))
            t.ask(f"{p.name} again, {number}", "InitProducerId", 5, p.init_body(**first))
        for name, version in (("end", 5), ("end of nothing", 5), ("old end", 4)):
            p = everyone[f"{name} {epoch}"]
            for number in range(3):
                before = p.end_body(False)
                p.learn(t.ask(f"{p.name}, {number}", "EndTxn", version, before))
                p.note_state(f"{p.name}, after {number}")
                t.ask(f"{p.name}, {number} again", "EndTxn", version, before)
                p.note_state(f"{p.name}, after {number} again")
        p = everyone[f"fence {epoch}"]
        for number in range(3):
            answer = t.ask(f"{p.name}, {number}", "InitProducerId", 5, p.init_body())
            p.learn(answer)
            p.note_state(f"{p.name}, after {number}")
    _note_log(t, "the markers", topic)


def every_state(t):
    """A new coordinator completes prepared transactions, and aborts those that are overdue."""
    topic = t.topic(2)
    now = int(time.time() * 1000)
    long_ago = now - 3_600_000
    everyone = []
    for state in range(6):
        for name, started in (("just begun", now), ("overdue", long_ago)):
            producer_id = 910_000_000 + len(everyone)
            at = [] if state in (_EMPTY, _COMPLETE_COMMIT, _COMPLETE_ABORT) else [(topic, 0)]
            everyone.append(
                _Stored(t, f"state {state}, {name}", producer_id, 5, state, *at, started=started)
            )
    gone = _Stored(t, "on a deleted topic", 915_000_000, 5, _PREPARE_COMMIT, ("none-such", 3),
                   (topic, 1), started=now)  # fmt: skip
    everyone.append(gone)
    _restart(t, *everyone)
    t.wait_for(topic, 0)
    for p in everyone:
        if p.name != "state 1, just begun":
            p.wait("Empty", "CompleteCommit", "CompleteAbort")
        ask_states(t, p.name, p.id)
        t.ask(f"{p.name} begins", "InitProducerId", 5, p.init_body())


def other_records(t):
    """Records that the coordinator cannot read, tombstones, and a later record of the same id."""
    def fresh(name, *values, key_version=0):
        p = Producer(t, name, starts=False)
        rows = [(state_key(p.id, key_version), value) for value in values]
        store_state(t, _PARTITIONS, p.id, *rows)
        return p

    good = state_value(920_000_000, 1, _COMPLETE_COMMIT)
    later = state_value(920_000_001, 2, _COMPLETE_ABORT)
    everyone = [
        fresh("one", good),
        fresh("two", good, later),
        fresh("a tombstone", good, None),
        fresh("bytes after it", good + b"\0"),
        fresh("a later key version", good, key_version=7),
    ]
    _restart(t, *everyone)
    for p in everyone:
        ask_states(t, p.name, p.id)


def live_transactions(t):
    """Transactions go on across a restart: open ones, ended ones, and their epochs."""
    topic = t.topic(1)
    idle, open_, done = (Producer(t, it) for it in ("idle", "open", "done"))
    open_.add((topic, 0)).produce(topic, version=11)
    done.add((topic, 0)).produce(topic, version=11)
    done.end(version=5)
    _restart(t, idle, open_, done)
    t.wait_for(topic, 0)
    for p in (idle, open_, done):
        ask_states(t, p.name, p.id)
    open_.produce(topic, version=11)
    open_.end(version=5)
    open_.note_state("it is committed")
    _note_log(t, "the log", topic)
    expected = done.init_body(producerId=done.producer_id, producerEpoch=done.epoch)
    t.ask("with its epoch", "InitProducerId", 5, expected)
    t.ask("the same again", "InitProducerId", 5, expected)
