"""ApiVersions in all versions, and malformed or unknown requests."""

import struct

from .. import schema
from ..wire import CLOSED

_SOFTWARE = {"clientSoftwareName": "differential", "clientSoftwareVersion": "1.0"}


def api_versions(t):
    for version in schema.versions("ApiVersions"):
        answer = t.call("ApiVersions", version, _SOFTWARE if version >= 3 else {})
        by_key = {it["apiKey"]: it for it in answer.pop("apiKeys")}
        answer["apiKeys"] = {
            str(key): f"{it['minVersion']}-{it['maxVersion']}" for key, it in sorted(by_key.items())
        }
        for kind in ("supportedFeatures", "finalizedFeatures"):
            features = sorted(answer.pop(kind, []), key=lambda it: it["name"])
            answer[kind] = {it.pop("name"): it for it in features}
        epoch = answer.get("finalizedFeaturesEpoch", -1)
        answer["finalizedFeaturesEpoch"] = "an offset" if epoch > 0 else epoch
        t.note(f"ApiVersions {version}", answer)


def api_versions_software(t):
    names = ["", "-bad", "bad-", "has space", "a.b-c", ".", "a", "ä", "under_score"]
    for name in names:
        for version in (3, 4):
            body = {**_SOFTWARE, "clientSoftwareName": name}
            t.note(f"name {name!r}, {version}", _brief(t.call("ApiVersions", version, body)))
        body = {**_SOFTWARE, "clientSoftwareVersion": name}
        t.note(f"version {name!r}", _brief(t.call("ApiVersions", 3, body)))


def _brief(answer):
    """Returns the full response of an error, and a mark for a success."""
    return "answered" if isinstance(answer, dict) and answer["errorCode"] == 0 else answer


def api_versions_of_unknown_versions(t):
    for version in (5, 99, 32767, -1):
        connection = t.connect()
        id_ = 7
        flexible = b"\0" if version >= 3 else b""
        head = connection.header(18, version, id_) + flexible
        connection.send_frame(head + b"\x02a\x02b\0")
        t.note(f"ApiVersions {version}", connection.receive("ApiVersions", version, id_))
        # The connection stays open, so that the client can retry with another version.
        t.note(f"after {version}", _brief(connection.request("ApiVersions", 0, {})))
        connection.close()


def unknown_apis_and_versions(t):
    wanted = [
        (999, 0), (-1, 0), (4, 0), (5, 0), (6, 0), (7, 0), (52, 0), (53, 0), (58, 0), (62, 0),
        (0, 2), (0, 0), (0, 14), (1, 3), (1, 19), (2, 0), (2, 12), (3, 14), (3, -1), (8, 1),
        (8, 11), (9, 0), (9, 11), (18, 6), (19, 1), (23, 1), (32, 0), (35, 0), (75, 1),
    ]  # fmt: skip
    for key, version in wanted:
        connection = t.connect()
        connection.send_frame(connection.header(key, version, 1) + b"\0" * 32)
        answer = connection.receive_frame(timeout=3)
        t.note(f"key {key}, version {version}", _kind(answer))
        connection.close()


def _kind(answer):
    return answer if isinstance(answer, str) else f"{len(answer)} bytes"


def frames_that_are_not_requests(t):
    good = struct.pack(">hhih", 18, 0, 1, 0)
    row = {"partitionIndex": 0, "committedOffset": 1, "committedMetadata": None}
    commit = schema.encode_request("OffsetCommit", 2, {
        "groupId": "odd", "topics": [{"name": "none-such", "partitions": [row]}]})  # fmt: skip
    frames = {
        "nothing": b"",
        "one byte": b"\0",
        "half of a header": good[:5],
        "a header without client id": good[:8],
        "a client id that is cut off": struct.pack(">hhih", 18, 0, 1, 9) + b"abc",
        "a client id of length -5": struct.pack(">hhih", 18, 0, 1, -5),
        "a null client id": struct.pack(">hhih", 18, 0, 1, -1),
        "a client id that is not UTF-8": struct.pack(">hhih", 18, 0, 1, 2) + b"\xff\xfe",
        "bytes after the body": good + b"more",
        "a body that is cut off": struct.pack(">hhih", 3, 8, 1, 0) + b"\0\0",
        "an array of 2 billion": struct.pack(">hhihi", 3, 1, 1, 0, 2**31 - 1),
        "an array of length -7": struct.pack(">hhihi", 3, 1, 1, 0, -7),
        "an array of length -7 that must not be null": struct.pack(">hhihi", 3, 0, 1, 0, -7),
        "a text of length -7": struct.pack(">hhih", 8, 2, 1, 0) + commit[:-2] + b"\xff\xf9",
        "letters": b"GET / HTTP/1.1\r\n\r\n" * 4,
    }
    for label, frame in frames.items():
        connection = t.connect()
        connection.send_frame(frame)
        answer = connection.receive_frame(timeout=3)
        t.note(label, answer if answer == CLOSED else "an answer")
        connection.close()


def sizes_that_are_not_sizes(t):
    for label, size in {"-1": -1, "the least": -(2**31), "too large": 104857601,
                        "the largest": 2**31 - 1}.items():  # fmt: skip
        connection = t.connect()
        connection.send_bytes(struct.pack(">i", size) + b"\0" * 64)
        t.note(label, _kind(connection.receive_frame(timeout=3)))
        connection.close()


def many_in_one_write(t):
    connection = t.connect()
    frames = b""
    for id_ in range(1, 6):
        body = connection.header(18, 0, id_)
        frames += struct.pack(">i", len(body)) + body
    connection.send_bytes(frames)
    t.note("answers in order", [
        _brief(connection.receive("ApiVersions", 0, id_)) for id_ in range(1, 6)
    ])  # fmt: skip
    connection.close()
