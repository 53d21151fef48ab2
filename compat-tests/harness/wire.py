"""Sends requests to one chosen node, without a client library and without retries.

A client library would choose the node itself.
"""

import socket
import struct
from dataclasses import dataclass

_METADATA, _OFFSET_FETCH, _FIND_COORDINATOR, _EPOCH_END = 3, 9, 10, 23
_INCREMENTAL_ALTER_CONFIGS, _DESCRIBE_QUORUM = 44, 55
GROUP, TRANSACTION = 0, 1
TIMEOUT_S = 5


@dataclass
class Partition:
    leader: int
    replicas: list
    isr: list


@dataclass
class Metadata:
    brokers: set
    topics: dict


class Reader:
    def __init__(self, data):
        self._data, self._at = data, 0

    def take(self, form):
        values = struct.unpack_from(">" + form, self._data, self._at)
        self._at += struct.calcsize(">" + form)
        return values[0]

    def string(self):
        length = self.take("h")
        if length < 0:
            return None
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def array(self, item):
        return [item() for _ in range(self.take("i"))]

    def varint(self):
        value, shift = 0, 0
        while True:
            byte = self.take("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def compact_array(self, item):
        return [item() for _ in range(self.varint() - 1)]

    def compact_string(self):
        length = self.varint() - 1
        if length < 0:
            return None
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def skip_tags(self):
        for _ in range(self.varint()):
            self.varint()
            length = self.varint()
            self._at += length


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def call(address, api, version, body, flexible=False):
    """Sends one request with this body. Returns a reader behind the response's header."""
    head = struct.pack(">hhih", api, version, 7, -1) + (b"\0" if flexible else b"")
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        size = _exactly(connection, 4)
        reply = Reader(_exactly(connection, struct.unpack(">i", size)[0]))
    assert reply.take("i") == 7, "the answer has the request's correlation id"
    if flexible:
        reply.skip_tags()
    return reply


def _exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the node closed the connection")
        data += more
    return data


def metadata(address, topics=None):
    """Returns the metadata of the node at `address`, of all topics or of those named."""
    if topics is None:
        body = struct.pack(">i", -1)
    else:
        names = [topic.encode() for topic in topics]
        body = struct.pack(">i", len(names))
        body += b"".join(struct.pack(">h", len(name)) + name for name in names)
    reply = call(address, _METADATA, 1, body)

    def broker():
        node = reply.take("i")
        reply.string(), reply.take("i"), reply.string()
        return node

    def partition():
        reply.take("h")
        index, leader = reply.take("i"), reply.take("i")
        replicas = reply.array(lambda: reply.take("i"))
        return index, Partition(leader, replicas, reply.array(lambda: reply.take("i")))

    def topic():
        reply.take("h")
        name = reply.string()
        reply.take("?")
        return name, dict(reply.array(partition))

    brokers = set(reply.array(broker))
    reply.take("i")
    return Metadata(brokers, dict(reply.array(topic)))


def quorum_leader(address):
    """Returns the leader of the metadata quorum as (id, epoch), or None if the node has none."""
    name = b"__cluster_metadata"
    body = b"\x02" + bytes([len(name) + 1]) + name + b"\x02" + struct.pack(">i", 0) + b"\0\0\0"
    reply = call(address, _DESCRIBE_QUORUM, 0, body, flexible=True)
    if reply.take("h") != 0 or reply.varint() != 2:
        return None
    reply.compact_string()
    assert reply.varint() == 2, "one partition was asked for"
    reply.take("i")
    error, leader, epoch = reply.take("h"), reply.take("i"), reply.take("i")
    return (leader, epoch) if error == 0 and leader >= 0 else None


def coordinator(address, key, of=GROUP):
    """Returns the id of the node that coordinates a group or a transactional id, or None."""
    reply = call(address, _FIND_COORDINATOR, 1, string(key) + struct.pack(">b", of))
    reply.take("i")
    error = reply.take("h")
    reply.string()
    return reply.take("i") if error == 0 else None


def committed(address, group):
    """Returns all committed offsets of a group by (topic, partition), or None if the node does not
    coordinate it."""
    all_topics = struct.pack(">i", -1)
    reply = call(address, _OFFSET_FETCH, 2, string(group) + all_topics)

    def partition():
        index, offset = reply.take("i"), reply.take("q")
        reply.string(), reply.take("h")
        return index, offset

    topics = reply.array(lambda: (reply.string(), reply.array(partition)))
    if reply.take("h") != 0:
        return None
    return {(topic, index): offset for topic, found in topics for index, offset in found}


def epoch_end(address, topic, epoch):
    """Asks the leader of partition 0 for the last epoch up to `epoch`. Returns it and its end, or
    None if the node does not lead."""
    consumer, any_epoch = -1, -1
    body = struct.pack(">ii", consumer, 1) + string(topic)
    body += struct.pack(">iiii", 1, 0, any_epoch, epoch)
    reply = call(address, _EPOCH_END, 3, body)
    reply.take("i"), reply.take("i"), reply.string(), reply.take("i")
    error, _, found = reply.take("h"), reply.take("i"), reply.take("i")
    return (found, reply.take("q")) if error == 0 else None


def set_configs(address, resources):
    """Alters configs: {(kind, name): (key, value)}. Returns the code and the text of each."""
    body = struct.pack(">i", len(resources))
    for (kind, name), (key, value) in resources.items():
        body += struct.pack(">b", kind) + string(name) + struct.pack(">i", 1)
        body += string(key) + b"\0" + string(value)
    reply = call(address, _INCREMENTAL_ALTER_CONFIGS, 0, body + b"\0")
    reply.take("i")

    def outcome():
        code, message = reply.take("h"), reply.string()
        return (reply.take("b"), reply.string()), (code, message)

    return dict(reply.array(outcome))
