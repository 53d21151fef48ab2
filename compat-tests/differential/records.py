"""Builds record batches (magic 2), and describes those that a broker returns."""

import gzip
import struct
import zlib

from .schema import get_varint, put_varint

_POLYNOMIAL = 0x82F63B78
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (_POLYNOMIAL if _byte & 1 else 0)
    _TABLE.append(_byte)

HEADER_LEN = 61
LOG_OVERHEAD = 12
GZIP = 1


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(value):
    return put_varint((value << 1) ^ (value >> 63))


def _get_varint(data, at):
    at, value = get_varint(data, at)
    return at, (value >> 1) ^ -(value & 1)


def _field(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(delta, timestamp_delta, value, key=None, headers=()):
    body = b"\0" + varint(timestamp_delta) + varint(delta) + _field(key) + _field(value)
    body += varint(len(headers))
    for name, content in headers:
        body += _field(name) + _field(content)
    return varint(len(body)) + body


def batch(values, timestamps=None, **fields):
    """Builds a batch of `values` (bytes, or records that `record` made), one per timestamp.

    `fields` overrides any field of the header: attributes, producer_id, sequence, count, crc ...
    """
    timestamps = timestamps or [1_600_000_000_000 + 10 * at for at in range(len(values))]
    base = timestamps[0] if timestamps else -1
    keys = fields.pop("keys", [None] * len(values))
    payload = b"".join(
        record(at, timestamps[at] - base, value, keys[at]) for at, value in enumerate(values)
    )
    payload = fields.pop("payload", payload)
    attributes = fields.pop("attributes", 0)
    compress = fields.pop("compress", True)
    if attributes & 7 == GZIP and compress:
        payload = gzip.compress(payload, mtime=0)
    tail = struct.pack(
        ">hiqqqhii",
        attributes,
        fields.pop("last_offset_delta", len(values) - 1),
        fields.pop("base_timestamp", base),
        fields.pop("max_timestamp", max(timestamps, default=-1)),
        fields.pop("producer_id", -1),
        fields.pop("producer_epoch", -1),
        fields.pop("sequence", -1),
        fields.pop("count", len(values)),
    )
    crc = fields.pop("crc", None)
    crc = crc32c(tail + payload) if crc is None else crc
    magic = fields.pop("magic", 2)
    length = fields.pop("length", 9 + len(tail) + len(payload))
    base_offset = fields.pop("base_offset", 0)
    leader_epoch = fields.pop("leader_epoch", -1)
    if fields:
        raise KeyError(f"a batch has no {set(fields)}")
    head = struct.pack(">qiibI", base_offset, length, leader_epoch, magic, crc)
    return head + tail + payload


def old_message_set(values, magic):
    """Builds a message set of magic 0 or 1, in which each message has its own offset and CRC."""
    out = b""
    for at, value in enumerate(values):
        body = struct.pack(">bb", magic, 0)
        if magic == 1:
            body += struct.pack(">q", 1_600_000_000_000 + at)
        body += struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
        out += struct.pack(">qiI", at, len(body) + 4, zlib.crc32(body)) + body
    return out


def describe(data):
    """Describes the batches in a Fetch response. A batch that is cut off is shown as bytes."""
    out, at = [], 0
    while at < len(data):
        rest = data[at:]
        if len(rest) < LOG_OVERHEAD or len(rest) < (size := _size(rest)):
            out.append({"cutOffBytes": len(rest)})
            break
        out.append(_describe_batch(rest[:size]))
        at += size
    return out


def entries(data):
    """Yields (offset, producer id, attributes, key, value) for each record of whole batches."""
    at = 0
    while len(data) - at >= LOG_OVERHEAD and len(data) - at >= _size(data[at:]):
        one = data[at : at + _size(data[at:])]
        at += len(one)
        (base_offset,) = struct.unpack_from(">q", one)
        attributes, producer_id, count = struct.unpack_from(">h20xq6xi", one, 21)
        for record in _records(one[HEADER_LEN:], count):
            delta, key, value = _fields_of(record)
            yield base_offset + delta, producer_id, attributes, key, value


def _fields_of(data):
    """Returns the offset delta, key and value of a record."""
    at, _ = _get_varint(data, 1)
    at, delta = _get_varint(data, at)
    found = []
    for _ in ("key", "value"):
        at, length = _get_varint(data, at)
        found.append(None if length < 0 else data[at : at + length])
        at += max(length, 0)
    return delta, *found


def _size(data):
    return LOG_OVERHEAD + struct.unpack_from(">i", data, 8)[0]


def _describe_batch(data):
    base_offset, length, leader_epoch, magic, crc = struct.unpack_from(">qiibI", data)
    (attributes, last_delta, base_timestamp, max_timestamp, producer_id, epoch, sequence,
     count) = struct.unpack_from(">hiqqqhii", data, 21)  # fmt: skip
    payload = data[HEADER_LEN:]
    if attributes & 7 == GZIP:
        payload = gzip.decompress(payload)
    described = {
        "baseOffset": base_offset,
        "lengthInBytes": length if attributes & 7 == 0 else "compressed",
        "partitionLeaderEpoch": leader_epoch,
        "magic": magic,
        "crcIsRight": crc == crc32c(data[21:]) if len(data) < 1 << 14 else "not looked at",
        "attributes": attributes,
        "lastOffsetDelta": last_delta,
        "baseTimestamp": base_timestamp,
        "maxTimestamp": max_timestamp,
        "producerId": producer_id,
        "producerEpoch": epoch,
        "baseSequence": sequence,
        "count": count,
    }
    if attributes & 7 in (0, GZIP):
        described["records"] = [_describe_record(it) for it in _records(payload, count)]
    return described


def _records(payload, count):
    at = 0
    for _ in range(count):
        at, length = _get_varint(payload, at)
        yield payload[at : at + length]
        at += length


def _describe_record(data):
    at, timestamp_delta = _get_varint(data, 1)
    at, delta = _get_varint(data, at)
    at, key_len = _get_varint(data, at)
    key = None if key_len < 0 else data[at : at + key_len].decode()
    at, value_len = _get_varint(data, at + max(key_len, 0))
    value = None if value_len < 0 else data[at : at + value_len].decode()
    if value and len(value) > 40:
        value = f"{len(value)} bytes"
    return f"{delta} +{timestamp_delta} ms {key}={value}"
