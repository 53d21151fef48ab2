"""Incremental fetch sessions (KIP-227)."""

from ..records import batch
from ._bodies import append, fetch


def _session(t, topic, version=12, partitions=None):
    body = fetch(t, topic, version, partitions, sessionId=0, sessionEpoch=0)
    return t.ask("begin", "Fetch", version, body)["sessionId"]


def _next(t, label, version, session, epoch, topics=(), forgotten=()):
    body = {"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "sessionId": session,
            "sessionEpoch": epoch, "topics": list(topics), "forgottenTopicsData": list(forgotten)}  # fmt: skip
    return t.ask(label, "Fetch", version, body)


def _partition(index, offset=0):
    return {"partition": index, "fetchOffset": offset, "partitionMaxBytes": 1 << 20}


def incremental(t):
    topic = t.topic(3)
    for version in (7, 12, 13, 18):
        named = {"topicId": t.id_of(topic)} if version >= 13 else {"topic": topic}
        t.note(f"version {version}", "")
        body = fetch(t, topic, version, [_partition(it, 99) for it in range(3)], sessionEpoch=0)
        body["topics"][0]["partitions"] = [_partition(0), _partition(1)]
        session = t.ask("begin", "Fetch", version, body)["sessionId"]
        _next(t, "nothing new", version, session, 1)
        append(t, topic, batch([b"new"]), 1)
        _next(t, "one new", version, session, 2)
        _next(t, "the same again", version, session, 3)
        _next(t, "moved on", version, session, 4, [{**named, "partitions": [_partition(1, 1)]}])
        _next(t, "one more", version, session, 5, [{**named, "partitions": [_partition(2)]}])
        _next(t, "one less", version, session, 6, (), [{**named, "partitions": [0]}])
        far = {**named, "partitions": [_partition(1, 99)]}
        _next(t, "out of range", version, session, 7, [far])
        _next(t, "still out of range", version, session, 8)
        _next(t, "unknown", version, session, 9, [{**named, "partitions": [_partition(9)]}])
        _next(t, "all forgotten", version, session, 10, (), [{**named, "partitions": [0, 1, 2, 9]}])
        _next(t, "and gone", version, session, 11)


def errors(t):
    topic = t.topic(1)
    for version in (7, 11, 12, 13, 17):
        _next(t, "no such session", version, 12345, 3)
        session = _session(t, topic, version)
        _next(t, "wrong epoch", version, session, 9)
        _next(t, "epoch again", version, session, 1)
        _next(t, "epoch used", version, session, 1)
        _next(t, "id without session", version, 0, 1)
        _next(t, "negative epoch", version, session, -5)
        _next(t, "closed", version, session, -1)
        _next(t, "after the end", version, session, 2)
        _next(t, "an id at epoch 0", version, 777, 0)


def naming_changes(t):
    topic = t.topic(1)
    session = _session(t, topic, 12)
    _next(t, "from names to ids", 13, session, 1)
    session = _session(t, topic, 13)
    _next(t, "from ids to names", 12, session, 1)


def without(t):
    topic = t.topic(1)
    for epoch in (-1, 0):
        t.ask(f"epoch {epoch}, no partitions", "Fetch", 12,
              {"maxWaitMs": 0, "sessionEpoch": epoch, "topics": []})  # fmt: skip
    t.ask("final epoch", "Fetch", 12, fetch(t, topic, sessionEpoch=-1))


def unknown_ids(t):
    """A topic that is deleted while a fetch session has it."""
    topic = t.topic(1)
    session = _session(t, topic, 13)
    t.call("DeleteTopics", 6, {"topics": [{"name": topic}], "timeoutMs": 5000})
    _next(t, "deleted", 13, session, 1)
    _next(t, "still deleted", 13, session, 2)
    unknown = {"topicId": "11111111-2222-3333-4444-555555555555", "partitions": [_partition(0)]}
    _next(t, "an unknown id joins", 13, session, 3, [unknown])
