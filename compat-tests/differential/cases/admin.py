"""DescribeLogDirs, DescribeConfigs and the APIs that alter configs, over the wire."""

from ..records import batch
from ._bodies import append

_TOPIC, _BROKER, _LOGGER = 2, 4, 8
_SET, _DELETE, _APPEND, _SUBTRACT = 0, 1, 2, 3


def describe_log_dirs(t):
    topic = t.topic(2)
    append(t, topic, batch([b"a"]))

    def tidy(answer):
        for result in answer["results"]:
            result["topics"].sort(key=lambda it: it["name"])
            for it in result["topics"]:
                it["partitions"].sort(key=lambda partition: partition["partitionIndex"])
        return answer

    for version in range(1, 6):
        for label, topics in {
            "one": [{"topic": topic, "partitions": [0, 1]}],
            "partly": [{"topic": topic, "partitions": [1, 7]}],
            "unknown": [{"topic": "none-such", "partitions": [0]}],
            "no partitions": [{"topic": topic, "partitions": []}],
            "empty": [],
        }.items():
            answer = tidy(t.call("DescribeLogDirs", version, {"topics": topics}))
            t.note(f"{label}, {version}", answer)
    everything = tidy(t.call("DescribeLogDirs", 4, {"topics": None}))
    names = [it["name"] for it in everything["results"][0]["topics"]]
    t.note("everything has the topic", topic in names)


def _describe(kind, name, keys=None, synonyms=True, documentation=False):
    return {
        "resources": [{"resourceType": kind, "resourceName": name, "configurationKeys": keys}],
        "includeSynonyms": synonyms,
        "includeDocumentation": documentation,
    }


def describe_configs(t):
    topic = t.topic(1, retention_ms=1234, cleanup_policy="compact")
    keys = ["retention.ms", "cleanup.policy", "segment.bytes", "no.such.key"]
    t.ask_all("topic, some keys", "DescribeConfigs", _describe(_TOPIC, topic, keys))
    t.ask("topic, without synonyms", "DescribeConfigs", 4,
          _describe(_TOPIC, topic, keys, synonyms=False))  # fmt: skip
    t.ask("topic, documentation", "DescribeConfigs", 4,
          _describe(_TOPIC, topic, keys, documentation=True))  # fmt: skip
    t.ask("no keys", "DescribeConfigs", 4, _describe(_TOPIC, topic, []))
    t.ask("no such topic", "DescribeConfigs", 4, _describe(_TOPIC, "none-such"))
    t.ask("bad topic", "DescribeConfigs", 4, _describe(_TOPIC, "bad name"))
    t.ask("empty topic", "DescribeConfigs", 4, _describe(_TOPIC, ""))
    t.ask("broker, some keys", "DescribeConfigs", 4,
          _describe(_BROKER, "1", ["log.retention.ms", "num.partitions", "node.id"]))  # fmt: skip
    t.ask("broker default", "DescribeConfigs", 4, _describe(_BROKER, ""))
    t.ask("another broker", "DescribeConfigs", 4, _describe(_BROKER, "2"))
    t.ask("not a broker", "DescribeConfigs", 4, _describe(_BROKER, "one"))
    for kind in (0, 1, 3, 16, 32, 99, -1):
        t.ask(f"type {kind}", "DescribeConfigs", 4, _describe(kind, "x"))
    t.ask("no resources", "DescribeConfigs", 4, {"resources": []})
    twice = _describe(_TOPIC, topic, ["retention.ms"])
    twice["resources"] *= 2
    t.ask("twice", "DescribeConfigs", 4, twice)


def describe_all_topic_configs(t):
    topic = t.topic(1)
    answer = t.call("DescribeConfigs", 4, _describe(_TOPIC, topic, None, True, True))
    result = answer["results"][0]
    result["configs"] = {it.pop("name"): it for it in sorted(result["configs"], key=_name)}
    t.note("all", answer)


def _name(it):
    return it["name"]


def _alter(kind, name, *changes, validate_only=False):
    configs = [
        {"name": key, "configOperation": operation, "value": value}
        for key, operation, value in changes
    ]
    resource = {"resourceType": kind, "resourceName": name, "configs": configs}
    return {"resources": [resource], "validateOnly": validate_only}


def _alterations(kind, name, key, list_key):
    return {
        "set": _alter(kind, name, (key, _SET, "4321")),
        "set to null": _alter(kind, name, (key, _SET, None)),
        "set to a word": _alter(kind, name, (key, _SET, "word")),
        "set to what is too small": _alter(kind, name, (key, _SET, "-9")),
        "delete": _alter(kind, name, (key, _DELETE, None)),
        "append to a number": _alter(kind, name, (key, _APPEND, "1")),
        "append": _alter(kind, name, (list_key, _APPEND, "compact")),
        "append again": _alter(kind, name, (list_key, _APPEND, "compact")),
        "subtract": _alter(kind, name, (list_key, _SUBTRACT, "compact")),
        "subtract what is not there": _alter(kind, name, (list_key, _SUBTRACT, "compact")),
        "append what it may not have": _alter(kind, name, (list_key, _APPEND, "nonsense")),
        "unknown key": _alter(kind, name, ("no.such.key", _SET, "1")),
        "unknown operation": _alter(kind, name, (key, 9, "1")),
        "a key twice": _alter(kind, name, (key, _SET, "1"), (key, _SET, "2")),
        "no changes": _alter(kind, name),
        "validate only": _alter(kind, name, (key, _SET, "77"), validate_only=True),
        "validate what is wrong": _alter(kind, name, (key, _SET, "x"), validate_only=True),
    }


def incremental_alter_topic_configs(t):
    topic = t.topic(1)
    for label, body in _alterations(_TOPIC, topic, "segment.bytes", "cleanup.policy").items():
        t.ask(label, "IncrementalAlterConfigs", 1, body)
        keys = ["segment.bytes", "cleanup.policy"]
        t.ask(f"after {label}", "DescribeConfigs", 4, _describe(_TOPIC, topic, keys))
    for name in ("none-such", "bad name", ""):
        t.ask(f"topic {name!r}", "IncrementalAlterConfigs", 0,
              _alter(_TOPIC, name, ("retention.ms", _SET, "1")))  # fmt: skip
    twice = _alter(_TOPIC, topic, ("retention.ms", _SET, "1"))
    twice["resources"] *= 2
    t.ask("a topic twice", "IncrementalAlterConfigs", 1, twice)


def incremental_alter_broker_configs(t):
    key, list_key = "log.segment.bytes", "log.cleanup.policy"
    for label, body in _alterations(_BROKER, "1", key, list_key).items():
        t.ask(label, "IncrementalAlterConfigs", 1, body)
        t.settle()
        t.ask(f"after {label}", "DescribeConfigs", 4, _describe(_BROKER, "1", [key, list_key]))
    restore = [(key, _DELETE, None), (list_key, _DELETE, None), ("no.such.key", _DELETE, None)]
    t.call("IncrementalAlterConfigs", 1, _alter(_BROKER, "1", *restore))
    t.ask("read only", "IncrementalAlterConfigs", 1, _alter(_BROKER, "1", ("node.id", _SET, "3")))
    t.ask("another broker", "IncrementalAlterConfigs", 1, _alter(_BROKER, "2", (key, _SET, "1")))
    t.ask("not a broker", "IncrementalAlterConfigs", 1, _alter(_BROKER, "x", (key, _SET, "1")))
    for kind in (0, 1, 3, 99, -1):
        body = _alter(kind, "x", (key, _SET, "1"))
        t.ask(f"type {kind}", "IncrementalAlterConfigs", 1, body)
    t.ask("nothing", "IncrementalAlterConfigs", 1, {"resources": []})


def alter_configs(t):
    topic = t.topic(1, retention_ms=99)

    def body(name, *configs, **fields):
        listed = [{"name": key, "value": value} for key, value in configs]
        resource = {"resourceType": _TOPIC, "resourceName": name, "configs": listed}
        return {"resources": [resource], **fields}

    t.ask_all("replace", "AlterConfigs", body(topic, ("segment.bytes", "2000000")))
    t.settle()
    keys = ["retention.ms", "segment.bytes"]
    t.ask("after", "DescribeConfigs", 4, _describe(_TOPIC, topic, keys))
    t.ask("null", "AlterConfigs", 2, body(topic, ("segment.bytes", None)))
    t.ask("wrong", "AlterConfigs", 2, body(topic, ("segment.bytes", "x")))
    t.ask("unknown", "AlterConfigs", 2, body(topic, ("no.such.key", "x")))
    t.ask("no topic", "AlterConfigs", 2, body("none-such", ("segment.bytes", "2000000")))
    t.ask("validate", "AlterConfigs", 2, body(topic, ("retention.ms", "1"), validateOnly=True))
    t.ask("none", "AlterConfigs", 2, body(topic))
    t.settle()
    t.ask("all gone", "DescribeConfigs", 4, _describe(_TOPIC, topic, ["segment.bytes"]))
