"""EndTxn in every state, for every epoch that a producer may have, in every version."""

from ._transactions import SETTINGS as SHARED
from ._transactions import Held, Producer

SETTINGS = SHARED
_STATES = ("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort")


def old_versions(t):
    """Until version 4, an end keeps the epoch."""
    _table(t, (1, 4), ended_by=4)


def version_5(t):
    """From version 5 on, each end increases the epoch."""
    _table(t, (5,), ended_by=5)


def version_5_after_an_old_one(t):
    _table(t, (5,), ended_by=4)


def old_versions_after_version_5(t):
    _table(t, (4,), ended_by=5)


def _table(t, versions, ended_by):
    topic, held = t.topic(1), Held(t)

    def producer(name, state):
        p = Producer(t, name)
        if state != "Empty":
            p.add((held.topic if state.startswith("Prepare") else topic, 0))
        if state not in ("Empty", "Ongoing"):
            is_complete = state.startswith("Complete")
            p.end(state.endswith("Commit"), ended_by, is_complete)
        return p

    for version in versions:
        for state in _STATES:
            for commit in (True, False):
                for change in (-1, 0, 1, 2):
                    what = "commit" if commit else "abort"
                    p = producer(f"{state} {what} {change}, {version}", state)
                    body = p.end_body(commit, producerEpoch=p.epoch + change)
                    t.ask(f"{state}: {what}, epoch {change:+}", "EndTxn", version, body)
                    if not state.startswith("Prepare"):
                        p.note_state(f"then {state}: {what}, epoch {change:+}, {version}")
            p = producer(f"{state} of another, {version}", state)
            other = p.end_body(producerId=p.producer_id + 1)
            t.ask(f"{state}: another producer id", "EndTxn", version, other)
    held.release()


def every_version(t):
    topic = t.topic(1)
    for version in range(6):
        p = Producer(t, f"id for {version}")

        def ask(label, p=p, version=version, commit=True, **fields):
            answer = t.ask(label, "EndTxn", version, p.end_body(commit, **fields))
            p.learn(answer)

        ask("unknown id", transactionalId=t.new_name("unknown"))
        ask("empty id", transactionalId="")
        ask("another producer id", producerId=p.producer_id + 1)
        ask("producer id -1", producerId=-1)
        for epoch in (-1, 32766, 32767):
            ask(f"epoch {epoch}", producerEpoch=epoch)
        p.add((topic, 0))
        ask("commit")
        p.wait("CompleteCommit")
        p.note_state(f"committed, {version}")
        p.add((topic, 0))
        ask("abort", commit=False)
        p.wait("CompleteAbort")
        p.note_state(f"aborted, {version}")


def retries(t):
    """A producer that got no response to version 5 ends with its old epoch again."""
    topic = t.topic(1)
    for commit in (True, False):
        name = "commit" if commit else "abort"
        p = Producer(t, f"{name} again").add((topic, 0))
        first = p.end_body(commit)
        p.end(commit, version=5)
        t.ask(f"{name} again", "EndTxn", 5, first)
        other = {**first, "committed": not commit}
        t.ask(f"{name}, then the other", "EndTxn", 5, other)
        p.add((topic, 0))
        t.ask(f"{name} again in the next transaction", "EndTxn", 5, first)
        p.note_state(f"the next transaction after {name}")
        p.end(commit, version=5)
        t.ask(f"{name} of two before", "EndTxn", 5, first)


def nothing_in_it(t):
    """An abort of nothing is allowed in version 5, and increases the epoch."""
    p = Producer(t)

    def ask(label, version, commit):
        p.learn(t.ask(label, "EndTxn", version, p.end_body(commit)))
        p.note_state(f"after {label}")

    ask("commit of nothing", 5, True)
    ask("abort of nothing", 5, False)
    ask("another abort of nothing", 5, False)
    ask("commit of nothing after an abort", 5, True)
    ask("abort of nothing in an old version", 4, False)
    p.init()
    ask("abort of nothing at the start, in an old version", 4, False)
