"""Builds frames of each codec, with literals only, so that a case can make any field wrong."""

import gzip
import struct
import zlib

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
_MASK_32, _MASK_64 = (1 << 32) - 1, (1 << 64) - 1


def gzip_member(data, flags=0, fields=b"", method=8, crc=None, size=None, magic=b"\x1f\x8b"):
    packer = zlib.compressobj(wbits=-15)
    header = magic + bytes([method, flags]) + bytes(6) + fields
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    return header + packer.compress(data) + packer.flush() + struct.pack("<II", crc, size)


def gzip_of_levels(data):
    return [gzip.compress(data, level, mtime=0) for level in (0, 1, 9)]


def _unsigned_varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def snappy_block(data, length=None):
    """A Snappy block without a frame."""
    out = _unsigned_varint(len(data) if length is None else length)
    for at in range(0, len(data), 60):
        part = data[at : at + 60]
        out += bytes([(len(part) - 1) << 2]) + part
    return out


def snappy_header(version=1, compatible=1, magic=b"\x82SNAPPY\0"):
    return magic + struct.pack(">ii", version, compatible)


def snappy_chunk(block, length=None):
    return struct.pack(">i", len(block) if length is None else length) + block


def xxh32(data):
    primes = (2654435761, 2246822519, 3266489917, 668265263, 374761393)

    def rotate(value, bits):
        return (value << bits | value >> (32 - bits)) & _MASK_32

    at = 0
    if len(data) >= 16:
        lanes = [primes[0] + primes[1], primes[1], 0, -primes[0]]
        while at + 16 <= len(data):
            for lane, word in enumerate(struct.unpack_from("<4I", data, at)):
                mixed = (lanes[lane] + word * primes[1]) & _MASK_32
                lanes[lane] = rotate(mixed, 13) * primes[0] & _MASK_32
            at += 16
        bits = (1, 7, 12, 18)
        value = sum(rotate(lane & _MASK_32, bit) for lane, bit in zip(lanes, bits, strict=True))
    else:
        value = primes[4]
    value = (value + len(data)) & _MASK_32
    while at + 4 <= len(data):
        value = (value + struct.unpack_from("<I", data, at)[0] * primes[2]) & _MASK_32
        value = rotate(value, 17) * primes[3] & _MASK_32
        at += 4
    for byte in data[at:]:
        value = rotate((value + byte * primes[4]) & _MASK_32, 11) * primes[0] & _MASK_32
    value = (value ^ value >> 15) * primes[1] & _MASK_32
    value = (value ^ value >> 13) * primes[2] & _MASK_32
    return value ^ value >> 16


def lz4_header(flags=0x60, size=0x40, content_size=None, checksum=None):
    if content_size is not None:
        flags |= 0x08
    descriptor = bytes([flags, size])
    if content_size is not None:
        descriptor += struct.pack("<Q", content_size)
    checksum = xxh32(descriptor) >> 8 & 0xFF if checksum is None else checksum
    return struct.pack("<I", 0x184D2204) + descriptor + bytes([checksum])


def lz4_literals(data):
    """An LZ4 block of one sequence with literals only."""
    if len(data) < 15:
        return bytes([len(data) << 4]) + data
    rest = len(data) - 15
    return b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data


def lz4_block(content, stored=False, length=None, checksum=None):
    length = len(content) if length is None else length
    out = struct.pack("<I", length | (0x80000000 if stored else 0)) + content
    return out if checksum is None else out + struct.pack("<I", checksum)


LZ4_END = bytes(4)


def xxh64(data):
    primes = (11400714785074694791, 14029467366897019727, 1609587929392839161,
              9650029242287828579, 2870177450012600261)  # fmt: skip

    def rotate(value, bits):
        return (value << bits | value >> (64 - bits)) & _MASK_64

    if len(data) >= 32:
        raise ValueError("only short data")
    value, at = primes[4] + len(data), 0
    while at + 8 <= len(data):
        word = struct.unpack_from("<Q", data, at)[0] * primes[1] & _MASK_64
        value ^= rotate(word, 31) * primes[0] & _MASK_64
        value = (rotate(value, 27) * primes[0] + primes[3]) & _MASK_64
        at += 8
    if at + 4 <= len(data):
        value ^= struct.unpack_from("<I", data, at)[0] * primes[0] & _MASK_64
        value = (rotate(value, 23) * primes[1] + primes[2]) & _MASK_64
        at += 4
    for byte in data[at:]:
        value = rotate(value ^ byte * primes[4] & _MASK_64, 11) * primes[0] & _MASK_64
    value = (value ^ value >> 33) * primes[1] & _MASK_64
    value = (value ^ value >> 29) * primes[2] & _MASK_64
    return value ^ value >> 32


def zstd_header(window=0x58, content_size=None, checksum=False, dictionary=None, reserved=0):
    """A zstd frame header. `window` is the window descriptor, or None for a single segment."""
    flags = reserved | (0x04 if checksum else 0) | (0 if dictionary is None else 1)
    flags |= 0x20 if window is None else 0
    flags |= 0x80 if content_size is not None else 0
    out = struct.pack("<IB", 0xFD2FB528, flags)
    out += b"" if window is None else bytes([window])
    out += b"" if dictionary is None else bytes([dictionary])
    return out + (b"" if content_size is None else struct.pack("<I", content_size))


def zstd_block(content, last=True, kind=0, size=None):
    """A zstd block: raw (kind 0), RLE (1), compressed (2) or reserved (3)."""
    size = len(content) if size is None else size
    return struct.pack("<I", size << 3 | kind << 1 | last)[:3] + content


def zstd_frame(data, **fields):
    frame = zstd_header(**fields) + zstd_block(data)
    return frame + (struct.pack("<I", xxh64(data) & _MASK_32) if fields.get("checksum") else b"")


def zstd_skippable(content, size=None):
    size = len(content) if size is None else size
    return struct.pack("<II", 0x184D2A50, size) + content
