"""Parses segment files: batches, records and indexes of the log format 2."""

import gzip
import struct
from dataclasses import dataclass

from kafka.codec import lz4_decode, snappy_decode, zstd_decode
from kafka.record.util import calc_crc32c

HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_END = 21
CONTROL = 1 << 5
DELETE_HORIZON = 1 << 6
CODECS = {0: bytes, 1: gzip.decompress, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


@dataclass
class Record:
    attributes: int
    timestamp: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list


@dataclass
class Batch:
    position: int
    size: int
    base_offset: int
    leader_epoch: int
    magic: int
    attributes: int
    last_offset: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int
    is_crc_valid: bool
    records: list
    data: bytes

    @property
    def is_compressed(self):
        return self.attributes & 7 != 0

    @property
    def is_control(self):
        return self.attributes & CONTROL != 0

    @property
    def has_horizon(self):
        return self.attributes & DELETE_HORIZON != 0

    def masked(self):
        """Returns everything but the delete horizon and what follows from its value.

        The horizon is the base timestamp, so timestamps of records are compared instead of their
        deltas. The compressed bytes depend on the library that compresses.
        """
        fields = {**vars(self)}
        for name in ("position", "data"):
            del fields[name]
        if self.has_horizon or self.is_compressed:
            del fields["size"]
        if self.has_horizon:
            del fields["base_timestamp"]
        elif not self.is_compressed:
            fields["data"] = self.data
        return fields


class _Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, length):
        taken = self.data[self.at : self.at + length]
        assert len(taken) == length, "the batch is cut"
        self.at += length
        return taken

    def varint(self):
        value = shift = 0
        while True:
            (byte,) = self.bytes(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)

    def field(self):
        length = self.varint()
        return None if length < 0 else self.bytes(length)

    def record(self, base_offset, base_timestamp):
        end = self.varint() + self.at
        (attributes,) = self.bytes(1)
        timestamp, offset = base_timestamp + self.varint(), base_offset + self.varint()
        key, value = self.field(), self.field()
        headers = [(self.field(), self.field()) for _ in range(self.varint())]
        assert self.at == end, "the record has another length"
        return Record(attributes, timestamp, offset, key, value, headers)


def batches(data):
    """Returns the batches of a segment file."""
    found, position = [], 0
    while position < len(data):
        base, length, epoch, magic, crc, attributes, delta, *rest = HEADER.unpack_from(data, position)
        base_timestamp, max_timestamp, producer_id, producer_epoch, sequence, count = rest
        size = 12 + length
        bytes_ = data[position : position + size]
        assert len(bytes_) == size and magic == 2, f"damaged batch at {position}"
        body = bytes_[HEADER.size :]
        body = _Body(CODECS[attributes & 7](body) if count else body)
        records = [body.record(base, base_timestamp) for _ in range(count)]
        assert body.at == len(body.data), f"bytes after the records of the batch at {position}"
        is_crc_valid = calc_crc32c(bytes_[CRC_END:]) == crc
        found.append(
            Batch(position, size, base, epoch, magic, attributes, base + delta, base_timestamp,
                  max_timestamp, producer_id, producer_epoch, sequence, count, is_crc_valid, records,
                  bytes_)
        )  # fmt: skip
        position += size
    return found


def index_entries(data, base_offset):
    """Returns (offset, position) of each entry of an .index file."""
    return [(base_offset + offset, position) for offset, position in struct.iter_unpack(">ii", data)]


def time_index_entries(data, base_offset):
    """Returns (timestamp, offset) of each entry of a .timeindex file."""
    return [(timestamp, base_offset + offset) for timestamp, offset in struct.iter_unpack(">qi", data)]


def producers(data):
    """Returns the rows of a .snapshot file, in order of producer ids."""
    version, _, count = struct.unpack_from(">hIi", data)
    assert version == 1 and len(data) == 10 + 46 * count, "damaged snapshot"
    return sorted(struct.iter_unpack(">qhiqiqiq", data[10:]))


def checkpoint(path):
    """Returns the offsets of an offset checkpoint file by partition directory."""
    # Apache Kafka creates the file of the cleaner empty.
    if not path.exists() or path.stat().st_size == 0:
        return {}
    version, count, *rows = path.read_text().splitlines()
    assert version == "0" and int(count) == len(rows), path.read_text()
    entries = [row.rsplit(" ", 2) for row in rows]
    return {f"{topic}-{partition}": int(offset) for topic, partition, offset in entries}
