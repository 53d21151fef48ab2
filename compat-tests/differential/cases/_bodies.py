"""Request bodies that many cases send."""

import time


def produce(t, topic, records, version=9, partition=0, acks=1, transactional_id=None):
    named = {"topicId": t.id_of(topic)} if version >= 13 else {"name": topic}
    return {
        "transactionalId": transactional_id,
        "acks": acks,
        "timeoutMs": 5000,
        "topicData": [{**named, "partitionData": [{"index": partition, "records": records}]}],
    }


def append(t, topic, records, partition=0):
    """Appends to a topic. The response is not part of the transcript."""
    answer = t.call("Produce", 9, produce(t, topic, records, partition=partition))
    result = answer["responses"][0]["partitionResponses"][0]
    assert result["errorCode"] == 0, result
    return result["baseOffset"]


def fetch(t, topic, version=12, partitions=None, topic_id=None, **fields):
    """The body of a Fetch of partition 0, or of `partitions`, that does not wait for records."""
    body = {"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20}
    one = {"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1 << 20}
    for name, value in fields.items():
        target = body if name in _FETCH_FIELDS else one
        target[name] = value
    if version >= 15 and "replicaId" in body:
        body["replicaState"] = {"replicaId": body.pop("replicaId")}
    named = {"topic": topic}
    if version >= 13:
        named = {"topicId": topic_id or t.id_of(topic)}
    chosen = [{**one, **it} for it in partitions] if partitions else [one]
    return {**body, "topics": [{**named, "partitions": chosen}]}


_FETCH_FIELDS = {"maxWaitMs", "minBytes", "maxBytes", "isolationLevel", "sessionId",
                 "sessionEpoch", "replicaId", "forgottenTopicsData", "rackId"}  # fmt: skip


def list_offsets(topic, *timestamps, partition=0, epoch=-1, **fields):
    asked = [
        {"partitionIndex": partition, "timestamp": it, "currentLeaderEpoch": epoch}
        for it in timestamps
    ]
    return {"replicaId": -1, "topics": [{"name": topic, "partitions": asked}], **fields}


def wait_until_gone(t, topic):
    """Waits until a deleted topic is gone: Kafka responds before it has applied the deletion."""
    asked = {"topics": [{"name": topic}], "allowAutoTopicCreation": False}
    deadline = time.monotonic() + 10
    while t.call("Metadata", 9, asked)["topics"][0]["errorCode"] == 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} is still there")
        time.sleep(0.01)
