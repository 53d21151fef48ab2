"""The responses of a case, with everything masked that differs between runs."""

import base64
import itertools
import re
import time
import uuid

from harness.broker import SORDINI_KIND

from . import records, schema
from .wire import CLOSED, Connection

_ZERO_ID = "00000000-0000-0000-0000-000000000000"
# Timestamps from the broker's clock are after this. The cases write only earlier ones.
_CLOCK_FROM_MS = 1_700_000_000_000
_CLOCK_IN_TEXT = re.compile(r"\b1[789]\d{11}\b|-9223370\d{12}\b")
# Responses whose order depends on Kafka's hash tables.
_UNORDERED = {"Produce", "DeleteRecords", "DescribeConfigs", "DescribeProducers", "ListOffsets",
              "IncrementalAlterConfigs", "AlterConfigs", "OffsetForLeaderEpoch", "Metadata",
              "CreateTopics", "DeleteTopics", "CreatePartitions", "ElectLeaders", "JoinGroup",
              "DescribeGroups", "ListGroups", "DeleteGroups", "OffsetFetch", "OffsetDelete",
              "FindCoordinator", "ListConfigResources", "AlterReplicaLogDirs",
              "AddPartitionsToTxn", "TxnOffsetCommit", "WriteTxnMarkers", "ListTransactions",
              "DescribeTransactions", "ConsumerGroupHeartbeat",
              "ConsumerGroupDescribe"}  # fmt: skip
_ORDER_KEYS = ("topicId", "name", "topic", "topicName", "resourceType", "resourceName", "index",
               "partitionIndex", "partition", "producerId", "partitionId", "groupId", "memberId",
               "key", "transactionalId", "errorCode")  # fmt: skip
_UUID = re.compile(r"([\w.-]*?)-?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
_READY_TIMEOUT_S = 20
# COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE and NOT_COORDINATOR.
_LOADING = (14, 15, 16)
_SETTLE_S = 0.2
_ids = itertools.count(1)


class Transcript:
    """The steps of one case against one broker: labels with decoded, masked responses."""

    def __init__(self, broker, name):
        self.broker = broker
        self.name = name
        self.steps = {}
        self._connection = None
        self._masks = {_ZERO_ID: _ZERO_ID}
        self._topic_ids = {}
        self._uuids = {}
        self._more_connections = []

    def close(self):
        for connection in self._more_connections:
            connection.close()
        if self._connection:
            self._connection.close()

    def connect(self, client_id="differential"):
        """Opens another connection. It closes at the end of the case at the latest."""
        connection = Connection(self.broker.port, client_id)
        self._more_connections.append(connection)
        return connection

    def call(self, api, version, body=None):
        """Sends a request on the case's connection. The response is not part of the transcript."""
        self._connection = self._connection or self.connect()
        answer = self._connection.request(api, version, body or {})
        if answer == CLOSED:
            self._connection = None
        return answer

    def ask(self, label, api, version, body=None):
        """Sends a request and adds its response to the transcript."""
        answer = self.call(api, version, body)
        self.note_answer(label, api, version, answer)
        return answer

    def note_answer(self, label, api, version, answer):
        """Adds a response to the transcript. The coverage test counts these labels."""
        self.note(f"{label}, {api} {version}", answer, sort=api in _UNORDERED)

    def ask_all(self, label, api, body, versions=None):
        """Sends a request in every version. `body` may be a function of the version."""
        for version in versions or schema.versions(api):
            made = body(version) if callable(body) else body
            self.ask(label, api, version, made)

    def note(self, label, answer, sort=False):
        if label in self.steps:
            raise KeyError(f"{self.name} has two steps {label!r}")
        masked = self._mask(None, answer)
        self.steps[label] = _sorted(masked) if sort else masked

    def topic(self, partitions=1, **configs):
        """Creates a topic that only this case uses. Returns its name."""
        name = f"{self.name.replace(' ', '-')}-{next(_ids)}"
        answer = self.call("CreateTopics", 7, {
            "topics": [{
                "name": name,
                "numPartitions": partitions,
                "replicationFactor": 1,
                "configs": [{"name": key.replace("_", "."), "value": str(value)}
                            for key, value in configs.items()],
            }],
            "timeoutMs": 10_000,
        })  # fmt: skip
        topic = answer["topics"][0]
        assert topic["errorCode"] == 0, topic
        self.know_topic(name, topic["topicId"])
        for partition in range(partitions):
            self.wait_for(name, partition)
        return name

    def new_name(self, label):
        """Returns a name that only this case uses. The transcript shows its label instead."""
        name = f"{self.name.replace(' ', '-')}-{next(_ids)}-{label}"
        self._masks[name] = label
        return name

    def know_topic(self, name, topic_id):
        self._topic_ids[name] = topic_id
        mask = f"id of {self._masks.get(name) or self._mask_name(name)}"
        self._masks[topic_id] = mask
        text = base64.urlsafe_b64encode(uuid.UUID(topic_id).bytes).decode().rstrip("=")
        self._masks[text] = mask

    def learn_topic(self, name):
        """Waits for a topic that another request is creating, and remembers its id."""
        self.wait_for(name, 0)
        asked = {"topics": [{"name": name}], "allowAutoTopicCreation": False}
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            topic = self.call("Metadata", 12, asked)["topics"][0]
            if topic["errorCode"] == 0:
                return self.know_topic(name, topic["topicId"])
            time.sleep(0.01)
        raise TimeoutError(f"metadata has no {name}")

    def wait_for(self, name, partition):
        """Waits until the broker leads a partition: Kafka responds to a creation before it does."""
        asked = [{"partitionIndex": partition, "timestamp": -1}]
        body = {"replicaId": -1, "topics": [{"name": name, "partitions": asked}]}
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            answer = self.call("ListOffsets", 7, body)
            if answer["topics"][0]["partitions"][0]["errorCode"] == 0:
                return
            time.sleep(0.01)
        raise TimeoutError(f"{name}-{partition} has no leader")

    def find_coordinator(self, group):
        """Waits until a group's coordinator is available and has loaded its partition."""
        asked, groups = {"coordinatorKeys": [group]}, {"groups": [group]}
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            found = self.call("FindCoordinator", 4, asked)["coordinators"][0]
            if found["errorCode"] == 0:
                described = self.call("DescribeGroups", 5, groups)["groups"][0]
                if described["errorCode"] not in _LOADING:
                    return
            time.sleep(0.02)
        raise TimeoutError(f"{group} has no coordinator")

    def settle(self):
        """Waits for Apache Kafka to apply a change: it responds before the change is in effect."""
        if self.broker.kind != SORDINI_KIND:
            time.sleep(_SETTLE_S)

    def restart(self):
        """Restarts the broker after a controlled shutdown."""
        self.close()
        self._connection = None
        self.broker.stop()
        self.broker.start()

    def id_of(self, name):
        return self._topic_ids[name]

    def mask_as(self, value, mask, field=None):
        """Shows `value` as `mask` from now on: everywhere, or in this field only."""
        self._masks[value if field is None else (field, value)] = mask

    def masked(self, text):
        """Returns a text as the transcript shows it. Names sort by it as in every run."""
        return self._mask_text(text)

    def _mask_name(self, name):
        prefix = self.name.replace(" ", "-")
        return f"topic-{list(self._topic_ids).index(name) + 1}" if name in self._topic_ids else (
            name.replace(prefix, "topic")
        )

    def _mask(self, field, value):
        if isinstance(value, dict):
            return {key: self._mask(key, it) for key, it in value.items()}
        if isinstance(value, list):
            return [self._mask(field, it) for it in value]
        if isinstance(value, bytes):
            is_records = field == "records"
            return self._mask(None, records.describe(value) if is_records else value.hex())
        if isinstance(value, str):
            if field == "documentation":
                return "a text"
            if field == "clusterId":
                return "the cluster"
            return self._mask_text(value)
        if field in ("producerId", "sessionId"):
            if (mask := self._masks.get(value) or self._masks.get((field, value))) is not None:
                return mask
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if field in ("totalBytes", "usableBytes"):
            return "bytes" if value > 0 else value
        if field == "port" and value == self.broker.port:
            return "<port>"
        if field == "port" and value == self.broker.controller_port:
            return "<controller-port>"
        if value > _CLOCK_FROM_MS and value < 2 * _CLOCK_FROM_MS:
            return "now"
        if (field == "producerId" and value >= 0) or (field == "sessionId" and value > 0):
            return f"some {field}"
        return value

    def _mask_text(self, value):
        if value in self._masks:
            return self._masks[value]
        for name, mask in self._masks.items():
            if isinstance(name, str) and isinstance(mask, str) and name != _ZERO_ID:
                value = value.replace(name, mask)
        for name in self._topic_ids:
            value = value.replace(name, self._mask_name(name))
        value = _UUID.sub(self._mask_uuid, value)
        value = _CLOCK_IN_TEXT.sub("now", value.replace(str(self.broker.dir), "<dir>"))
        value = value.replace(str(self.broker.port), "<port>")
        return value.replace(str(self.broker.controller_port), "<controller-port>")

    def _mask_uuid(self, found):
        """Numbers the ids of each prefix from 1. Ids that a case made up (with zeros) stay."""
        prefix, value = found[1], found[2]
        if value.startswith("00000000"):
            return found[0]
        known = self._uuids.setdefault(prefix, [])
        if value not in known:
            known.append(value)
        return f"{prefix}{prefix and chr(45)}<id {known.index(value) + 1}>"



def _sorted(value, field=None):
    """Sorts lists of objects by their names and indexes, and lists of partition indexes."""
    if isinstance(value, dict):
        return {key: _sorted(it, key) for key, it in value.items()}
    if not isinstance(value, list):
        return value
    items = [_sorted(it) for it in value]
    if field == "partitions" and all(isinstance(it, int) for it in items):
        items.sort()
    if all(isinstance(it, dict) for it in items):
        items.sort(key=lambda it: [str(it.get(key, "")) for key in _ORDER_KEYS])
    return items
