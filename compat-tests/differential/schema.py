"""Encodes requests and decodes responses by the message schemas inside Kafka's client jar."""

import functools
import json
import re
import struct
import uuid
import zipfile

from harness.paths import JARS

_FIXED = {
    "int8": ">b",
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "float64": ">d",
}
_ZERO_ID = uuid.UUID(int=0)


def _range(text):
    """Parses `3+`, `1-4`, `2` or `none`. Returns the lowest and the highest version."""
    if not text or text == "none":
        return (1, 0)
    low, plus, _ = text.partition("+")
    if plus:
        return (int(low), 32767)
    low, dash, high = text.partition("-")
    return (int(low), int(high if dash else low))


def _within(version, text):
    low, high = _range(text)
    return low <= version <= high


@functools.cache
def _messages():
    """Returns the schemas of all requests and responses, by name and by (API key, kind)."""
    found = {}
    jar = next(JARS.glob("kafka-clients-*.jar"))
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"common/message/\w+(Request|Response)\.json", name):
                lines = archive.read(name).decode().splitlines()
                text = "\n".join(re.sub(r"^\s*//.*| // .*", "", line) for line in lines)
                message = json.loads(text)
                found[message["apiKey"], message["type"]] = message
                found[message["name"]] = message
    return found


def api_key(api):
    return _messages()[f"{api}Request"]["apiKey"]


def api_name(key):
    return _messages()[key, "request"]["name"].removesuffix("Request")


def versions(api):
    """Returns the versions in Kafka's schema, without an unstable last one."""
    request = _messages()[f"{api}Request"]
    low, high = _range(request["validVersions"])
    return range(low, high + 1 - bool(request.get("latestVersionUnstable")))


def is_flexible(api, version):
    return _within(version, _messages()[f"{api}Request"].get("flexibleVersions"))


def nullable_by_mistake(api, version):
    """Yields the string, bytes and array fields of a request that are not nullable."""
    for field in _messages()[f"{api}Request"]["fields"]:
        has_length = field["type"].startswith("[]") or field["type"] in ("string", "bytes")
        if not has_length or not _within(version, field["versions"]):
            continue
        if not _within(version, field.get("nullableVersions")):
            yield _key(field["name"])


def encode_request(api, version, body):
    return _Codec(f"{api}Request", version).encode(body)


def decode_response(api, version, data):
    codec = _Codec(f"{api}Response", version)
    at, body = codec.decode(data)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over behind {api}Response {version}")
    return body


def put_varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return at, value


def _key(name):
    return name[0].lower() + name[1:]


class _Codec:
    """Encodes and decodes one message in one version."""

    def __init__(self, name, version):
        self.schema = _messages()[name]
        self.version = version
        self.flexible = _within(version, self.schema.get("flexibleVersions"))
        self.structs = {it["name"]: it["fields"] for it in self.schema.get("commonStructs", [])}

    def encode(self, body):
        return self._put_struct(self.schema["fields"], body)

    def decode(self, data):
        return self._get_struct(self.schema["fields"], data, 0)

    def _fields(self, fields):
        return [it for it in fields if _within(self.version, it["versions"])]

    def _is_tagged(self, field):
        return self.flexible and _within(self.version, field.get("taggedVersions"))

    def _struct(self, field):
        return field.get("fields") or self.structs[field["type"].removeprefix("[]")]

    def _default(self, field):
        kind, default = field["type"], field.get("default")
        if default == "null":
            return None
        if kind.startswith("[]"):
            return []
        if kind in _FIXED:
            return float(default or 0) if kind == "float64" else int(str(default or 0), 0)
        plain = {"bool": default in (True, "true"), "string": default or "", "bytes": b"",
                 "records": None, "uuid": str(_ZERO_ID)}  # fmt: skip
        if kind in plain:
            return plain[kind]
        return {_key(it["name"]): self._default(it) for it in self._fields(self._struct(field))}

    def _put_struct(self, fields, body):
        unknown = set(body) - {_key(it["name"]) for it in fields}
        if unknown:
            raise KeyError(f"{self.schema['name']} has no {unknown}")
        out, tagged = bytearray(), []
        for field in self._fields(fields):
            value = body.get(_key(field["name"]), self._default(field))
            if not self._is_tagged(field):
                out += self._put(field, value)
            elif value != self._default(field):
                tagged.append((field["tag"], self._put(field, value)))
        if self.flexible:
            out += put_varint(len(tagged))
            for tag, data in sorted(tagged):
                out += put_varint(tag) + put_varint(len(data)) + data
        return bytes(out)

    def _put_len(self, length, short):
        if self.flexible:
            return put_varint(length + 1)
        return struct.pack(">h" if short else ">i", length)

    def _put(self, field, value):
        kind = field["type"]
        if kind.startswith("[]"):
            if value is None:
                return self._put_len(-1, False)
            item = {**field, "type": kind[2:], "nullableVersions": "none"}
            return self._put_len(len(value), False) + b"".join(self._put(item, it) for it in value)
        if kind in _FIXED:
            return struct.pack(_FIXED[kind], value)
        if kind == "bool":
            return struct.pack(">?", value)
        if kind == "uuid":
            return uuid.UUID(value).bytes
        if kind == "string":
            data = None if value is None else value.encode()
            return self._put_len(-1 if data is None else len(data), True) + (data or b"")
        if kind in ("bytes", "records"):
            return self._put_len(-1 if value is None else len(value), False) + (value or b"")
        if _within(self.version, field.get("nullableVersions")):
            return b"\xff" if value is None else b"\x01" + self._put_struct(
                self._struct(field), value
            )
        return self._put_struct(self._struct(field), value)

    def _get_struct(self, fields, data, at):
        body, tagged = {}, {}
        for field in self._fields(fields):
            if self._is_tagged(field):
                tagged[field["tag"]] = field
            else:
                at, body[_key(field["name"])] = self._get(field, data, at)
        if self.flexible:
            at, count = get_varint(data, at)
            for _ in range(count):
                at, tag = get_varint(data, at)
                at, length = get_varint(data, at)
                field = tagged[tag]
                end, body[_key(field["name"])] = self._get(field, data, at)
                at += length
                if end != at:
                    raise ValueError(f"tagged field {field['name']} is not as long as it says")
        return at, body

    def _get_len(self, data, at, short):
        if self.flexible:
            at, length = get_varint(data, at)
            return at, length - 1
        size = 2 if short else 4
        return at + size, struct.unpack_from(">h" if short else ">i", data, at)[0]

    def _get(self, field, data, at):
        kind = field["type"]
        if kind.startswith("[]"):
            at, length = self._get_len(data, at, False)
            if length < 0:
                return at, None
            item, items = {**field, "type": kind[2:], "nullableVersions": "none"}, []
            for _ in range(length):
                at, value = self._get(item, data, at)
                items.append(value)
            return at, items
        if kind in _FIXED:
            form = _FIXED[kind]
            return at + struct.calcsize(form), struct.unpack_from(form, data, at)[0]
        if kind == "bool":
            return at + 1, data[at] != 0
        if kind == "uuid":
            return at + 16, str(uuid.UUID(bytes=data[at : at + 16]))
        if kind in ("string", "bytes", "records"):
            at, length = self._get_len(data, at, kind == "string")
            if length < 0:
                return at, None
            value = data[at : at + length]
            if len(value) != length:
                raise ValueError(f"{field['name']} ends behind the message")
            return at + length, value.decode() if kind == "string" else value
        if _within(self.version, field.get("nullableVersions")):
            if data[at] == 0xFF:
                return at + 1, None
            at += 1
        return self._get_struct(self._struct(field), data, at)
