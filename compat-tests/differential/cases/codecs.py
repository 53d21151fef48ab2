"""Compressed batches: valid and malformed frames of each codec. Each is produced to a topic that
keeps the codec and to one that does not. Then ListOffsets decompresses it."""

import zlib

from .. import codecs as c
from ..records import GZIP, batch, record
from ._bodies import fetch, list_offsets, produce

_TIME = 1_600_000_000_000
_ONE = record(0, 0, b"hello")
_TWO = record(1, 5, b"world")
_LONG = record(0, 0, b"x" * 300)


def _try_all(t, codec, payloads):
    """Produces each payload. It has one record, or the count that is given with it."""
    kept, unpacked = t.topic(1), t.topic(1, compression_type="uncompressed")
    for at, (label, payload) in enumerate(payloads.items()):
        payload, count = payload if isinstance(payload, tuple) else (payload, 1)
        times = [_TIME + 1000 * at + 5 * it for it in range(count)]
        records = batch([b""] * count, times, attributes=codec, payload=payload, compress=False)
        t.ask(label, "Produce", 9, produce(t, kept, records))
        t.ask(f"{label}, looked into", "ListOffsets", 7, list_offsets(kept, times[-1]))
        t.ask(f"{label}, to be unpacked", "Produce", 9, produce(t, unpacked, records))
    t.ask("what was unpacked", "Fetch", 12, fetch(t, unpacked))
    for name, topic in (("kept", kept), ("unpacked", unpacked)):
        for time in (-1, -3):
            t.ask(f"time {time}, {name}", "ListOffsets", 7, list_offsets(topic, time))


def gzip_members(t):
    one, two = c.gzip_member(_ONE), c.gzip_member(_TWO)
    header_crc = (zlib.crc32(b"\x1f\x8b\x08\x02" + bytes(6)) & 0xFFFF).to_bytes(2, "little")
    levels = {f"level {at}": it for at, it in enumerate(c.gzip_of_levels(_ONE))}
    _try_all(t, c.GZIP, {
        **levels,
        "one member": one,
        "two members": (one + two, 2),
        "a record in two members": c.gzip_member(_ONE[:4]) + c.gzip_member(_ONE[4:]),
        "a second member with too much": one + two,
        "an empty member first": c.gzip_member(b"") + one,
        "an empty member last": one + c.gzip_member(b""),
        "an empty member between": (one + c.gzip_member(b"") + two, 2),
        "only an empty member": c.gzip_member(b""),
        "a short second member": one + c.gzip_member(b"")[:-1],
        "a second member without trailer": one + two[:-8],
        "a second member cut off": one + two[:-12],
        "a broken second member": one + two[:12] + b"\xff" * 20,
        "zeros behind": one + bytes(40),
        "a byte behind": one + b"\1",
        "garbage behind": one + b"garbage" * 10,
        "half a header behind": one + two[:5],
        "a header without contents behind": one + two[:10],
        "nothing": b"",
        "a header only": one[:10],
        "without trailer": one[:-8],
        "half a trailer": one[:-4],
        "wrong CRC": c.gzip_member(_ONE, crc=7),
        "wrong size": c.gzip_member(_ONE, size=7),
        "wrong magic": c.gzip_member(_ONE, magic=b"\x1f\x8c"),
        "another method": c.gzip_member(_ONE, method=7),
        "a name": c.gzip_member(_ONE, 8, b"name\0"),
        "a name without end": b"\x1f\x8b\x08\x08" + bytes(6) + b"name",
        "a comment and extra bytes": c.gzip_member(_ONE, 0x14, b"\3\0abccomment\0"),
        "extra bytes that lack": b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\0abc",
        "a header CRC": c.gzip_member(_ONE, 2, header_crc),
        "a wrong header CRC": c.gzip_member(_ONE, 2, b"ab"),
        "reserved flags": c.gzip_member(_ONE, 0xE0),
        "text": c.gzip_member(_ONE, 1),
        "zlib": zlib.compress(_ONE),
        "bare deflate": zlib.compress(_ONE)[2:-4],
    })  # fmt: skip


def snappy_blocks(t):
    header, chunk = c.snappy_header(), c.snappy_chunk(c.snappy_block(_ONE))
    second = c.snappy_chunk(c.snappy_block(_TWO))
    empty = c.snappy_chunk(c.snappy_block(b""))
    _try_all(t, c.SNAPPY, {
        "bare": c.snappy_block(_ONE),
        "bare and long": c.snappy_block(_LONG),
        "bare and empty": b"\0",
        "bare with a byte behind": c.snappy_block(_ONE) + b"\0",
        "bare and too short": c.snappy_block(_ONE, len(_ONE) + 1),
        "bare and too long": c.snappy_block(_ONE, len(_ONE) - 1),
        "bare and huge": c.snappy_block(_ONE, (1 << 32) - 1),
        "bare, length without end": b"\xff" * 20,
        "framed": header + chunk,
        "two chunks": (header + chunk + second, 2),
        "two streams": (header + chunk + header + second, 2),
        "three headers": header * 3 + chunk,
        "a record in two chunks": header + c.snappy_chunk(c.snappy_block(_ONE[:4]))
                                  + c.snappy_chunk(c.snappy_block(_ONE[4:])),
        "an empty chunk first": header + empty + chunk,
        "an empty chunk last": header + chunk + empty,
        "a chunk of length 0": header + chunk + bytes(4),
        "a chunk too much": header + chunk + second,
        "no chunk": header,
        "nothing": b"",
        "one byte behind": header + chunk + b"\0",
        "three bytes behind": header + chunk + b"\0\0\0",
        "four bytes behind": header + chunk + b"\0\0\0\4",
        "a chunk cut off": header + chunk[:-1],
        "a negative length": header + c.snappy_chunk(b"", -1) + chunk,
        "a large length": header + c.snappy_chunk(b"", 0x7FFFFFFF) + chunk,
        "half a header": header[:9],
        "half a second header": header + chunk + header[:9],
        "a wrong second header": header + chunk + c.snappy_header(magic=b"\x82SNAPPX\0"),
        "a wrong second header, then more": header + chunk
                                            + c.snappy_header(magic=b"\x82SNAPPX\0") + second,
        "version 0": c.snappy_header(0) + chunk,
        "version -1": c.snappy_header(-1) + chunk,
        "version 9": c.snappy_header(9, 9) + chunk,
        "a second header of version 0": header + chunk + c.snappy_header(0),
        "compatible with 0": c.snappy_header(1, 0) + chunk,
        "wrong magic": c.snappy_header(magic=b"\x82SNAPPX\0") + chunk,
        "a copy before the start": header + c.snappy_chunk(b"\x05\x00a\x0d\x09"),
        "an overlapping copy": header + c.snappy_chunk(
            c.snappy_block(_LONG[:10])[1:].join([b"\xb5\x02", b""])
            + b"\xfe\x01\0" * 4 + b"\xda\x01\0" + c.snappy_block(_LONG[-2:])[1:]),
        "garbage": b"garbagegarbagegarbagegarbage",
    })  # fmt: skip


def lz4_frames(t):
    header, one, two = c.lz4_header(), c.lz4_literals(_ONE), c.lz4_literals(_TWO)
    end = c.LZ4_END
    checked = c.lz4_header(0x70)
    summed = c.lz4_header(0x64)
    frame = header + c.lz4_block(one) + end
    _try_all(t, c.LZ4, {
        "compressed": frame,
        "stored": header + c.lz4_block(_ONE, stored=True) + end,
        "two blocks": (header + c.lz4_block(one) + c.lz4_block(_TWO, stored=True) + end, 2),
        "a record in two blocks": header + c.lz4_block(_ONE[:4], stored=True)
                                  + c.lz4_block(c.lz4_literals(_ONE[4:])) + end,
        "long": header + c.lz4_block(c.lz4_literals(_LONG)) + end,
        "two frames": (frame + header + c.lz4_block(two) + end, 2),
        "a frame too much": frame + header + c.lz4_block(two) + end,
        "bytes behind": frame + b"behind",
        "a block too much": header + c.lz4_block(one) + c.lz4_block(two) + end,
        "an empty block first": header + c.lz4_block(b"\0") + c.lz4_block(one) + end,
        "an empty block last": header + c.lz4_block(one) + c.lz4_block(b"\0") + end,
        "an empty block between": (header + c.lz4_block(one) + c.lz4_block(b"\0")
                                   + c.lz4_block(two) + end, 2),
        "an empty block before too much": header + c.lz4_block(one) + c.lz4_block(b"\0")
                                          + c.lz4_block(two) + end,
        "an empty block in a value": header + c.lz4_block(_ONE[:8], stored=True)
                                     + c.lz4_block(b"\0") + c.lz4_block(_ONE[8:], stored=True) + end,
        "stored and empty": header + c.lz4_block(b"", stored=True) + c.lz4_block(one) + end,
        "without end": header + c.lz4_block(one),
        "half an end": header + c.lz4_block(one) + end[:3],
        "no blocks": header + end,
        "a header only": header,
        "half a header": header[:6],
        "five bytes": header[:5],
        "nothing": b"",
        "wrong magic": b"\5" + frame[1:],
        "a legacy frame": b"\x02\x21\x4c\x18" + c.lz4_block(one),
        "a skippable frame first": c.zstd_skippable(b"abc") + frame,
        "a wrong header checksum": c.lz4_header(checksum=0) + c.lz4_block(one) + end,
        "version 0": c.lz4_header(0x20) + c.lz4_block(one) + end,
        "version 2": c.lz4_header(0xA0) + c.lz4_block(one) + end,
        "linked blocks": c.lz4_header(0x40) + c.lz4_block(one) + end,
        "a reserved flag": c.lz4_header(0x62) + c.lz4_block(one) + end,
        "a dictionary": c.lz4_header(0x61) + c.lz4_block(one) + end,
        "reserved sizes": c.lz4_header(size=0x41) + c.lz4_block(one) + end,
        "a reserved high bit": c.lz4_header(size=0xC0) + c.lz4_block(one) + end,
        "block size 3": c.lz4_header(size=0x30) + c.lz4_block(one) + end,
        "block size 5": c.lz4_header(size=0x50) + c.lz4_block(one) + end,
        "block size 6": c.lz4_header(size=0x60) + c.lz4_block(one) + end,
        "block size 7": c.lz4_header(size=0x70) + c.lz4_block(one) + end,
        "a content size": c.lz4_header(content_size=len(_ONE)) + c.lz4_block(one) + end,
        "a wrong content size": c.lz4_header(content_size=7) + c.lz4_block(one) + end,
        "a content size cut off": c.lz4_header(content_size=7)[:10],
        "a content size without checksum": c.lz4_header(content_size=7)[:14],
        "block checksums": checked + c.lz4_block(one, checksum=c.xxh32(one)) + end,
        "a stored block's checksum": checked
                                     + c.lz4_block(_ONE, True, checksum=c.xxh32(_ONE)) + end,
        "a long block's checksum": checked + c.lz4_block(_LONG, True, checksum=c.xxh32(_LONG)) + end,
        "a wrong block checksum": checked + c.lz4_block(one, checksum=7) + end,
        "a missing block checksum": checked + c.lz4_block(one),
        "half a block checksum": checked + c.lz4_block(one) + b"\1\2",
        "a content checksum": summed + c.lz4_block(one) + end + b"\1\2\3\4",
        "a right content checksum": summed + c.lz4_block(one) + end
                                    + c.xxh32(_ONE).to_bytes(4, "little"),
        "a missing content checksum": summed + c.lz4_block(one) + end,
        "half a content checksum": summed + c.lz4_block(one) + end + b"\1\2",
        "a missing content checksum in a record": summed + c.lz4_block(c.lz4_literals(_ONE[:6])) + end,
        "a missing content checksum before a record": (summed + c.lz4_block(one) + end, 2),
        "a block cut off": header + c.lz4_block(one)[:-2],
        "a block too large": header + c.lz4_block(b"x" * 65537, stored=True) + end,
        "a block that grows too large": header + c.lz4_block(c.lz4_literals(b"x" * 65000)
                                        [:-10]) + end,
        "a broken block": header + c.lz4_block(b"\xf0\xff") + end,
        "a match before the start": header + c.lz4_block(b"\x10a\5\0") + end,
        "a match at the end": header + c.lz4_block(b"\x1fa\1\0\0") + end,
        "garbage": b"garbagegarbagegarbage",
    })  # fmt: skip


def zstd_frames(t):
    frame, second = c.zstd_frame(_ONE), c.zstd_frame(_TWO)
    header = c.zstd_header()
    halves = (c.zstd_block(_ONE[:4], last=False), c.zstd_block(_ONE[4:]))
    _try_all(t, c.ZSTD, {
        "raw": frame,
        "two blocks": header + b"".join(halves),
        "two frames": (frame + second, 2),
        "a frame too much": frame + second,
        "an empty frame first": c.zstd_frame(b"") + frame,
        "an empty frame last": frame + c.zstd_frame(b""),
        "only an empty frame": c.zstd_frame(b""),
        "an empty block first": header + c.zstd_block(b"", last=False) + c.zstd_block(_ONE),
        "an empty block last": header + c.zstd_block(_ONE, last=False) + c.zstd_block(b""),
        "without a last block": header + c.zstd_block(_ONE, last=False),
        "a block cut off": header + c.zstd_block(_ONE)[:-2],
        "a single segment": c.zstd_header(None, len(_ONE)) + c.zstd_block(_ONE),
        "a content size": c.zstd_frame(_ONE, content_size=len(_ONE)),
        "a content size too small": c.zstd_frame(_ONE, content_size=len(_ONE) - 1),
        "a content size too large": c.zstd_frame(_ONE, content_size=len(_ONE) + 1),
        "a checksum": c.zstd_frame(_ONE, checksum=True),
        "a wrong checksum": c.zstd_header(checksum=True) + c.zstd_block(_ONE) + b"\1\2\3\4",
        "a missing checksum": c.zstd_header(checksum=True) + c.zstd_block(_ONE),
        "half a checksum": c.zstd_header(checksum=True) + c.zstd_block(_ONE) + b"\1\2",
        "a skippable frame first": c.zstd_skippable(b"abc") + frame,
        "a skippable frame last": frame + c.zstd_skippable(b"abc"),
        "a skippable frame between": (frame + c.zstd_skippable(b"") + second, 2),
        "only a skippable frame": c.zstd_skippable(b"abc"),
        "a skippable frame cut off": frame + c.zstd_skippable(b"abc", 9),
        "a skippable frame cut off first": c.zstd_skippable(b"abc", 9),
        "a dictionary": c.zstd_frame(_ONE, dictionary=5),
        "dictionary 0": c.zstd_frame(_ONE, dictionary=0),
        "a reserved bit": c.zstd_frame(_ONE, reserved=8),
        "an unused bit": c.zstd_frame(_ONE, reserved=16),
        "the smallest window": c.zstd_frame(_ONE, window=0),
        "a window of 128 MiB": c.zstd_frame(_ONE, window=0x88),
        "a window beyond": c.zstd_frame(_ONE, window=0x89),
        "a window of 256 MiB": c.zstd_frame(_ONE, window=0x90),
        "a window of 1 GiB": c.zstd_frame(_ONE, window=0xA0),
        "a block of no kind": header + c.zstd_block(_ONE, kind=3),
        "a compressed block without contents": header + c.zstd_block(b"", kind=2),
        "a repeated byte": (header + c.zstd_block(_ONE, last=False)
                            + c.zstd_block(b"\0", kind=1, size=1 << 17)),
        "a block too large": c.zstd_header() + c.zstd_block(b"\0", kind=1, size=(1 << 17) + 1),
        "nothing": b"",
        "a byte": b"\x28",
        "magic only": frame[:4],
        "wrong magic": b"\x29" + frame[1:],
        "a byte behind": frame + b"\1",
        "three bytes behind": frame + b"abc",
        "four bytes behind": frame + b"abcd",
        "a magic behind": frame + frame[:4],
        "a header behind": frame + header,
        "a second frame cut off": frame + second[:-2],
        "a second frame cut off, with its record": (frame + header
            + c.zstd_block(_TWO, last=False), 2),
        "garbage": b"garbagegarbage",
    })  # fmt: skip


def records_inside(t):
    def sized(size):
        return bytes([size]) + _ONE[1:]

    def pack(payload):
        return c.gzip_member(payload)

    _try_all(t, c.GZIP, {
        "a size too small": pack(sized(_ONE[0] - 2)),
        "a size too large": pack(sized(_ONE[0] + 2)),
        "a size of 0": pack(sized(0)),
        "a negative size": pack(sized(1)),
        "a size of too many bytes": pack(b"\xff" * 7),
        "a size too small, then another": (pack(sized(_ONE[0] - 2) + _TWO), 2),
        "a timestamp of too many bytes": pack(b"\x18\0" + b"\xff" * 11),
        "an offset of too many bytes": pack(b"\x18\0\0" + b"\xff" * 11),
        "a key beyond the end": pack(b"\x10\0\0\0\x7f\2v\0\0"),
        "a value beyond the end": pack(b"\x10\0\0\0\1\x7fv\0\0"),
        "no headers": pack(_ONE[:-1]),
        "half of it": pack(_ONE[:4]),
        "negative headers": pack(_ONE[:-1] + b"\1"),
        "headers that lack": pack(_ONE[:-1] + b"\4"),
        "a null header key": pack(_ONE[:-1] + b"\2\1\1"),
        "a null header value": pack(record(0, 0, b"v", headers=[(b"k", None)])),
        "headers": pack(record(0, 0, b"v", headers=[(b"k", b"1"), (b"k", b"2")])),
        "a null value": pack(record(0, 0, None, b"key")),
        "null in other words": pack(b"\x0c\0\0\0\3\5\0"),
        "any attributes": pack(_ONE[:1] + b"\xff" + _ONE[2:]),
        "a record too few": (pack(_ONE), 2),
        "a record too many": pack(_ONE + _TWO),
        "a byte behind": pack(_ONE + b"\0"),
        "offsets from 1": pack(record(1, 0, b"a")),
        "offsets with a gap": (pack(_ONE + record(2, 0, b"b")), 2),
        "offsets twice": (pack(_ONE + _ONE), 2),
        "offsets that fall": (pack(record(1, 0, b"a") + record(0, 0, b"b")), 2),
        "a negative offset": (pack(record(-1, 0, b"a") + record(1, 0, b"b")), 2),
    })  # fmt: skip


def false_headers(t):
    """Batch headers with other timestamps than their records."""
    plain = t.topic(1)
    kept = {
        "a maximum too low": {"max_timestamp": _TIME - 1000},
        "a maximum too high": {"max_timestamp": _TIME + 1_000_000},
        "a maximum far ahead": {"max_timestamp": 9_000_000_000_000},
        "no maximum": {"max_timestamp": -1},
        "the claim of the log's time": {"attributes": c.GZIP | 8},
        "the claim of the log's time and no time": {"attributes": c.GZIP | 8, "max_timestamp": -1},
        "attributes that are unknown": {"attributes": c.GZIP | 0x4080, "max_timestamp": 5},
        "the base of another": {"base_timestamp": _TIME + 77},
    }
    for label, fields in kept.items():
        for codec in (0, c.GZIP):
            attributes = fields.get("attributes", c.GZIP) & ~c.GZIP | codec
            records = batch([b"a", b"b"], [_TIME, _TIME + 5], **{**fields, "attributes": attributes})
            t.ask(f"{label}, codec {codec}", "Produce", 9, produce(t, plain, records))
    t.ask("read back", "Fetch", 12, fetch(t, plain))
    for time in (-3, _TIME - 1000, _TIME + 5, _TIME + 6, _TIME + 83):
        t.ask(f"time {time}", "ListOffsets", 7, list_offsets(plain, time))
    ahead = [_TIME, 9_000_000_000_000]
    records = batch([b"a", b"b"], ahead, attributes=GZIP, max_timestamp=_TIME)
    t.ask("a record ahead of the maximum", "Produce", 9, produce(t, plain, records))
    t.ask("a record ahead, no errors by record", "Produce", 7, produce(t, plain, records, 7))
    limited = t.topic(1, message_timestamp_before_max_ms=1000)
    records = batch([b"a", b"b"], [_TIME, _TIME], attributes=GZIP, max_timestamp=9_000_000_000_000)
    t.ask("records before the maximum", "Produce", 9, produce(t, limited, records))
    stamped = t.topic(1, message_timestamp_type="LogAppendTime")
    records = batch([b"a", b"b"], ahead, attributes=GZIP, max_timestamp=_TIME)
    t.ask("under the log's time", "Produce", 9, produce(t, stamped, records))
    records = batch([b"a", b"b"], [_TIME, _TIME], attributes=GZIP | 8)
    t.ask("a claim under the log's time", "Produce", 9, produce(t, stamped, records))
    compacted = t.topic(1, cleanup_policy="compact")
    records = batch([b"a", b"b"], ahead, attributes=GZIP, keys=[None, b"k"], max_timestamp=_TIME)
    t.ask("a key that lacks, a time ahead", "Produce", 9, produce(t, compacted, records))


def many_records(t):
    """More records than fit into the buffers of a decoder."""
    topic, unpacked = t.topic(1), t.topic(1, compression_type="uncompressed")
    payload = b"".join(record(at, at, b"v" * 199) for at in range(1500))
    times = [_TIME + at for at in range(1500)]
    packed = {
        c.GZIP: c.gzip_member(payload),
        c.SNAPPY: c.snappy_header() + b"".join(
            c.snappy_chunk(c.snappy_block(payload[at : at + 32768]))
            for at in range(0, len(payload), 32768)),
        c.LZ4: c.lz4_header() + b"".join(
            c.lz4_block(c.lz4_literals(payload[at : at + 65536]))
            for at in range(0, len(payload), 65536)) + c.LZ4_END,
        c.ZSTD: c.zstd_header() + b"".join(
            c.zstd_block(payload[at : at + 100_000], at + 100_000 >= len(payload))
            for at in range(0, len(payload), 100_000)),
    }  # fmt: skip
    for codec, content in packed.items():
        for count in (1500, 1499, 1501):
            records = batch([b""] * count, [*times, 0][:count], attributes=codec, payload=content,
                            compress=False, max_timestamp=_TIME)  # fmt: skip
            t.ask(f"codec {codec}, {count}", "Produce", 9, produce(t, topic, records))
            t.ask(f"codec {codec}, {count}, to be unpacked", "Produce", 9,
                  produce(t, unpacked, records))  # fmt: skip
    for name, it in (("kept", topic), ("unpacked", unpacked)):
        for time in (-1, -3, _TIME + 1499, _TIME + 1500):
            t.ask(f"time {time}, {name}", "ListOffsets", 7, list_offsets(it, time))
