"""Forwarded requests while the active controller changes."""

import pytest
from differential.wire import Connection

NONE, REQUEST_TIMED_OUT = 0, 7


def created(name):
    topic = {"name": name, "numPartitions": 1, "replicationFactor": 3}
    topic |= {"assignments": [], "configs": []}
    body = {"topics": [topic], "timeoutMs": 20_000, "validateOnly": False}
    return "CreateTopics", 5, body, lambda answer: answer["topics"][0]["errorCode"]


def partitions_added(name):
    topic = {"name": name, "count": 3, "assignments": None}
    body = {"topics": [topic], "timeoutMs": 20_000, "validateOnly": False}
    return "CreatePartitions", 2, body, lambda answer: answer["results"][0]["errorCode"]


def configured(name):
    config = {"name": "retention.ms", "configOperation": 0, "value": "3600000"}
    resource = {"resourceType": 2, "resourceName": name, "configs": [config]}
    body = {"resources": [resource], "validateOnly": False}
    return "IncrementalAlterConfigs", 1, body, lambda answer: answer["responses"][0]["errorCode"]


def quorum_described():
    partitions = [{"partitionIndex": 0}]
    body = {"topics": [{"topicName": "__cluster_metadata", "partitions": partitions}]}
    return "DescribeQuorum", 1, body, lambda answer: (
        answer["errorCode"] or answer["topics"][0]["partitions"][0]["errorCode"]
    )


@pytest.mark.parametrize("asked", ["deposed", "other"])
def test_controller_is_replaced(cluster, run, topic, asked):
    """A broker's client gets the response of the next controller, not NOT_CONTROLLER.

    The active controller is paused when the requests are sent. They go to it, so that it handles
    them after the election of a new controller, or to another broker, which forwards them to it.
    """
    run(f"kafka-topics --create --topic {topic} --partitions 1 --replication-factor 3").ok()
    old = cluster.controller()
    node = old if asked == "deposed" else next(id for id in (1, 2, 3) if id != old)
    requests = [
        created(f"{topic}-new"),
        partitions_added(topic),
        configured(topic),
        quorum_described(),
    ]
    connections = [Connection(cluster[node].port, "forwarding") for _ in requests]
    for connection in connections:
        assert connection.request("ApiVersions", 0, {})["errorCode"] == NONE
    cluster[old].pause()
    sent = [
        (connection, api, version, connection.send(api, version, body), error_code)
        for connection, (api, version, body, error_code) in zip(connections, requests)
    ]
    assert cluster.controller() != old
    if node == old:
        cluster[old].resume()
    for connection, api, version, correlation_id, error_code in sent:
        answer = connection.receive(api, version, correlation_id)
        assert not isinstance(answer, str), (api, answer)
        assert error_code(answer) == NONE, (api, answer)
        connection.close()
    cluster[old].resume()


def test_no_controller_is_active(new_cluster):
    """Without a majority, the client gets REQUEST_TIMED_OUT after the request's timeout."""
    cluster = new_cluster(request_timeout_ms="2000").start()
    connections = [Connection(cluster[1].port, "forwarding") for _ in range(3)]
    for connection in connections:
        assert connection.request("ApiVersions", 0, {})["errorCode"] == NONE
    cluster.kill(2, 3)
    requests = [created("never"), configured("never"), quorum_described()]
    for connection, (api, version, body, error_code) in zip(connections, requests):
        answer = connection.request(api, version, body)
        assert not isinstance(answer, str), (api, answer)
        assert error_code(answer) == REQUEST_TIMED_OUT, (api, answer)
        connection.close()
