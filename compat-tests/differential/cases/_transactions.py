"""A transactional producer that sends each request as a case wants it."""

import struct
import time
import uuid

from ..records import batch
from ..wire import Connection

TOPIC = "__transaction_state"
# The cases of transactions share one broker.
SETTINGS = {
    "transaction_state_log_num_partitions": "2",
    "transaction_abort_timed_out_transaction_cleanup_interval_ms": "200",
}
TRANSACTIONAL = 0x10
EMPTY, ONGOING, PREPARE_COMMIT, PREPARE_ABORT = "Empty", "Ongoing", "PrepareCommit", "PrepareAbort"
COMPLETE_COMMIT, COMPLETE_ABORT = "CompleteCommit", "CompleteAbort"
_NONE, _CONCURRENT_TRANSACTIONS = 0, 51
# COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
_LOADING = (14, 15, 16)
_TIMEOUT_S = 20
_FENCED_BROKER = 77


def find_transaction_coordinator(t, name):
    """Waits until the coordinator of a transactional id is available and has loaded its state."""
    asked = {"keyType": 1, "coordinatorKeys": [name]}

    def is_ready():
        # Apache Kafka refuses until its controller has assigned a block of ids to the broker.
        plain = {"transactionalId": None, "transactionTimeoutMs": 1000}
        if t.call("InitProducerId", 5, plain)["errorCode"] != _NONE:
            return False
        if t.call("FindCoordinator", 4, asked)["coordinators"][0]["errorCode"] != _NONE:
            return False
        return describe(t, name)["errorCode"] not in _LOADING

    wait_until(f"{name} has a coordinator", is_ready)


def wait_until(what, holds):
    deadline = time.monotonic() + _TIMEOUT_S
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)
    return result


def describe(t, name):
    asked = {"transactionalIds": [name]}
    return t.call("DescribeTransactions", 0, asked)["transactionStates"][0]


def ask_states(t, label, *names):
    """Adds a DescribeTransactions to the transcript. The partition of a group depends on its id."""
    answer = t.call("DescribeTransactions", 0, {"transactionalIds": list(names)})
    for state in answer["transactionStates"]:
        for topic in state["topics"]:
            if topic["topic"] == "__consumer_offsets":
                topic["partitions"] = f"{len(topic['partitions'])} of groups"
    t.note_answer(label, "DescribeTransactions", 0, answer)


def java_hash(text):
    """Java's String.hashCode of an ASCII text without its sign, as Kafka chooses partitions."""
    value = 0
    for unit in text.encode("ascii"):
        value = (31 * value + unit) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


def by_topic(*partitions, key="partitions"):
    """Lists (topic, index) pairs as AddPartitionsToTxn and WriteTxnMarkers have them."""
    topics = {}
    for topic, index in partitions:
        topics.setdefault(topic, []).append(index)
    return [{"name": name, key: indexes} for name, indexes in topics.items()]


class Producer:
    """A producer with a transactional id. `name` is its id in the transcript."""

    def __init__(self, t, name="id", timeout=60_000, starts=True):
        self.t, self.name, self.timeout = t, name, timeout
        self.id = t.new_name(name)
        self.producer_id, self.epoch = -1, -1
        self._known, self._sequences = [], {}
        find_transaction_coordinator(t, self.id)
        if starts:
            self.init()

    def learn(self, answer):
        """Uses the producer id and epoch of a response from now on."""
        if answer["errorCode"] != _NONE or answer.get("producerId", -1) < 0:
            return
        if answer["producerId"] not in self._known:
            self._known.append(answer["producerId"])
            number = len(self._known)
            mask = f"producer {number} of {self.name}"
            self.t.mask_as(answer["producerId"], mask, "producerId")
        if (self.producer_id, self.epoch) != (answer["producerId"], answer["producerEpoch"]):
            self._sequences = {}
        self.producer_id, self.epoch = answer["producerId"], answer["producerEpoch"]

    def init(self):
        """Initialises the producer, again while the coordinator completes a transaction."""

        def answered():
            answer = self.t.call("InitProducerId", 5, self.init_body())
            self.learn(answer)
            if answer["errorCode"] not in (_NONE, _CONCURRENT_TRANSACTIONS, *_LOADING):
                raise AssertionError(f"InitProducerId of {self.name}: {answer}")
            return answer["errorCode"] == _NONE

        wait_until(f"{self.name} gets a producer id", answered)
        return self

    def init_body(self, **fields):
        return {"transactionalId": self.id, "transactionTimeoutMs": self.timeout, **fields}

    def identity(self, **fields):
        return {"transactionalId": self.id, "producerId": self.producer_id,
                "producerEpoch": self.epoch, **fields}  # fmt: skip

    def add_body(self, version, *partitions, **fields):
        """The body of AddPartitionsToTxn. `fields` are those of version 4 and later."""
        topics = by_topic(*partitions)
        if version >= 4:
            return {"transactions": [{**self.identity(), "topics": topics, **fields}]}
        old = {f"v3AndBelow{key[0].upper()}{key[1:]}": value
               for key, value in self.identity(**fields).items()}  # fmt: skip
        return {**old, "v3AndBelowTopics": topics}

    def add(self, *partitions, version=3):
        """Adds partitions to the transaction, as a client of this version or a broker does."""
        answer = self.t.call("AddPartitionsToTxn", version, self.add_body(version, *partitions))
        results = answer["resultsByTopicV3AndBelow"] if version < 4 else [
            it for one in answer["resultsByTransaction"] for it in one["topicResults"]]  # fmt: skip
        for topic in results:
            for partition in topic["resultsByPartition"]:
                assert partition["partitionErrorCode"] == _NONE, answer
        return self

    def records(self, values=(b"a", b"b"), partition=0, topic="", **fields):
        """A transactional batch with the next sequence number of the partition."""
        place = topic, partition
        first = self._sequences.get(place, 0)
        if not fields:
            self._sequences[place] = first + len(values)
        header = {"attributes": TRANSACTIONAL, "producer_id": self.producer_id,
                  "producer_epoch": self.epoch, "sequence": first}  # fmt: skip
        return batch(list(values), **{**header, **fields})

    def produce_body(self, topic, records, version=11, partition=0, **fields):
        named = {"topicId": self.t.id_of(topic)} if version >= 13 else {"name": topic}
        data = [{"index": partition, "records": records}]
        return {"transactionalId": self.id, "acks": -1, "timeoutMs": 5000,
                "topicData": [{**named, "partitionData": data}], **fields}  # fmt: skip

    def produce(self, topic, values=(b"a", b"b"), version=11, partition=0):
        """Writes records. Until version 11, the partition must be in the transaction."""
        records = self.records(values, partition, topic)
        body = self.produce_body(topic, records, version, partition)
        answer = self.t.call("Produce", version, body)
        result = answer["responses"][0]["partitionResponses"][0]
        assert result["errorCode"] == _NONE, result
        return result["baseOffset"]

    def end_body(self, commit=True, **fields):
        return self.identity(committed=commit, **fields)

    def end(self, commit=True, version=4, is_complete=True):
        """Ends the transaction and waits until all markers are written."""
        answer = self.t.call("EndTxn", version, self.end_body(commit))
        assert answer["errorCode"] == _NONE, answer
        self.learn(answer)
        if is_complete:
            self.wait(COMPLETE_COMMIT if commit else COMPLETE_ABORT)
        return self

    def abort(self, version=4):
        return self.end(False, version)

    def state(self):
        return describe(self.t, self.id)["transactionState"]

    def wait(self, *states):
        wait_until(f"{self.name} is {states}", lambda: self.state() in states)
        return self

    def note_state(self, label):
        """Adds the state to the transcript, once it is not a state that ends by itself."""
        self.wait(EMPTY, ONGOING, COMPLETE_COMMIT, COMPLETE_ABORT)
        ask_states(self.t, label, self.id)


class Held:
    """A topic that refuses markers until `release`: its ISR is too small.

    Transactions with its partition stay in PrepareCommit or PrepareAbort. Its second replica is on
    a broker that is registered and never starts.
    """

    def __init__(self, t):
        self._t = t
        _register_fenced_broker(t)
        self.topic = t.new_name("held")
        assigned = [{"partitionIndex": 0, "brokerIds": [1, _FENCED_BROKER]}]
        topic = {"name": self.topic, "numPartitions": -1, "replicationFactor": -1,
                 "assignments": assigned,
                 "configs": [{"name": "min.insync.replicas", "value": "2"}]}  # fmt: skip
        answer = t.call("CreateTopics", 7, {"topics": [topic], "timeoutMs": 10_000})
        assert answer["topics"][0]["errorCode"] == _NONE, answer
        t.know_topic(self.topic, answer["topics"][0]["topicId"])
        t.wait_for(self.topic, 0)

    def release(self):
        config = {"name": "min.insync.replicas", "configOperation": 0, "value": "1"}
        resource = {"resourceType": 2, "resourceName": self.topic, "configs": [config]}
        answer = self._t.call("IncrementalAlterConfigs", 1, {"resources": [resource]})
        assert answer["responses"][0]["errorCode"] == _NONE, answer


def _register_fenced_broker(t):
    software = {"clientSoftwareName": "differential", "clientSoftwareVersion": "1"}
    supported = t.call("ApiVersions", 4, software)["supportedFeatures"]
    features = [
        {"name": it["name"], "minSupportedVersion": it["minVersion"],
         "maxSupportedVersion": it["maxVersion"]}
        for it in supported
    ]  # fmt: skip
    listener = {"name": "PLAINTEXT", "host": "127.0.0.1", "port": 1, "securityProtocol": 0}
    controller = Connection(t.broker.controller_port)
    answer = controller.request("BrokerRegistration", 4, {
        "brokerId": _FENCED_BROKER,
        "clusterId": t.call("DescribeCluster", 0)["clusterId"],
        "incarnationId": str(uuid.UUID(int=_FENCED_BROKER)),
        "listeners": [listener],
        "features": features,
        "logDirs": [str(uuid.UUID(int=1 << 64 | _FENCED_BROKER))],
    })  # fmt: skip
    controller.close()
    assert answer["errorCode"] == _NONE, answer


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def state_key(name, version=0):
    return struct.pack(">h", version) + string(name)


def state_value(producer_id, epoch, state, partitions=(), started=-1, timeout=60_000, version=0):
    """A TransactionLogValue of version 0. `state` is Kafka's number of the state."""
    now = int(time.time() * 1000)
    topics = by_topic(*partitions)
    out = struct.pack(">hqhib", version, producer_id, epoch, timeout, state)
    is_empty = state == 0
    out += struct.pack(">i", -1 if is_empty else len(topics))
    for topic in topics:
        out += string(topic["name"]) + struct.pack(">i", len(topic["partitions"]))
        out += b"".join(struct.pack(">i", it) for it in topic["partitions"])
    return out + struct.pack(">qq", started if started > 0 else now, started)


def store_state(t, partitions, name, *rows):
    """Writes records of a transactional id into its partition, as an admin client may.

    `rows` are (key, value). The coordinator reads them when it loads the partition.
    """
    keys, values = zip(*rows, strict=True)
    now = [int(time.time() * 1000)] * len(rows)
    data = [{"index": java_hash(name) % partitions,
             "records": batch(list(values), now, keys=list(keys))}]  # fmt: skip
    admin = t.connect("__admin_client")
    answer = admin.request("Produce", 9, {
        "acks": -1, "timeoutMs": 5000, "topicData": [{"name": TOPIC, "partitionData": data}]})  # fmt: skip
    result = answer["responses"][0]["partitionResponses"][0]
    assert result["errorCode"] == _NONE, result
