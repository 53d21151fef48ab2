"""DescribeLogDirs, DescribeConfigs and the APIs that alter configs, over the wire."""

from ..records import batch
from ._bodies import append

_TOPIC, _BROKER, _LOGGER, _METRICS, _GROUP = 2, 4, 8, 16, 32
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
            t.note_answer(label, "DescribeLogDirs", version, answer)
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


def describe_all_broker_configs(t):
    for label, name in {"of the broker": "1", "of all brokers": ""}.items():
        answer = t.call("DescribeConfigs", 4, _describe(_BROKER, name, None, True, True))
        result = answer["results"][0]
        result["configs"] = {it.pop("name"): it for it in sorted(result["configs"], key=_name)}
        t.note_answer(label, "DescribeConfigs", 4, answer)


def describe_other_resources(t):
    group, metrics = t.new_name("group"), t.new_name("metrics")
    for label, kind, name in (
        ("group", _GROUP, group),
        ("no group", _GROUP, ""),
        ("metrics", _METRICS, metrics),
        ("no metrics", _METRICS, ""),
        ("loggers of another", _LOGGER, "2"),
        ("loggers of nobody", _LOGGER, ""),
        ("loggers of a word", _LOGGER, "x"),
    ):
        answer = t.call("DescribeConfigs", 4, _describe(kind, name))
        for result in answer["results"]:
            result["configs"].sort(key=_name)
        t.note_answer(label, "DescribeConfigs", 4, answer)
    changes = {
        "group": (_GROUP, group, "consumer.session.timeout.ms", ("46000", "1", "x", None)),
        "metrics": (_METRICS, metrics, "interval.ms", ("100", "1", "x", None)),
        "metrics matched": (_METRICS, metrics, "match", ("client_id=.*", "nonsense", "a=b", "")),
        "metrics named": (_METRICS, metrics, "metrics", ("org.apache.", "*", "", None)),
    }
    for label, (kind, name, key, values) in changes.items():
        for value in values:
            body = _alter(kind, name, (key, _SET, value))
            t.ask(f"{label} to {value!r}", "IncrementalAlterConfigs", 1, body)
            t.settle()
            t.ask(f"{label} is {value!r}", "DescribeConfigs", 4, _describe(kind, name, [key]))
        body = _alter(kind, name, ("no.such.key", _SET, "1"))
        t.ask(f"{label}, unknown key", "IncrementalAlterConfigs", 1, body)
        t.ask(f"{label}, deleted", "IncrementalAlterConfigs", 1,
              _alter(kind, name, (key, _DELETE, None)))  # fmt: skip
    for kind in (_GROUP, _METRICS):
        t.ask(f"no name, type {kind}", "IncrementalAlterConfigs", 1,
              _alter(kind, "", ("interval.ms", _SET, "100")))  # fmt: skip


def alter_lists(t):
    topic = t.topic(1)
    policy, throttled = "cleanup.policy", "leader.replication.throttled.replicas"
    for label, change in {
        "append two": (policy, _APPEND, "compact,delete"),
        "append one twice": (policy, _APPEND, "compact,compact"),
        "append spaces": (policy, _APPEND, " compact "),
        "append nothing": (policy, _APPEND, ""),
        "append null": (policy, _APPEND, None),
        "subtract null": (policy, _SUBTRACT, None),
        "subtract nothing": (policy, _SUBTRACT, ""),
        "subtract two": (policy, _SUBTRACT, "compact,nonsense"),
        "subtract what is left": (policy, _SUBTRACT, "delete"),
        "append to none": (policy, _APPEND, "delete"),
        "set with spaces": (policy, _SET, " compact , delete "),
        "subtract after spaces": (policy, _SUBTRACT, "delete"),
        "set one twice": (policy, _SET, "delete,delete"),
        "subtract what is there twice": (policy, _SUBTRACT, "delete"),
        "set to nothing": (policy, _SET, ""),
        "append to an unset list": (throttled, _APPEND, "0:1"),
        "append more": (throttled, _APPEND, "1:1,0:1"),
        "subtract one": (throttled, _SUBTRACT, "0:1"),
        "append a star": (throttled, _APPEND, "*"),
        "append nonsense": (throttled, _APPEND, "x"),
        "delete it": (throttled, _DELETE, "a value"),
        "subtract from an unset list": (throttled, _SUBTRACT, "0:1"),
        "append to a text": ("compression.type", _APPEND, "gzip"),
        "subtract from a boolean": ("preallocate", _SUBTRACT, "true"),
        "append to an unknown": ("no.such.key", _APPEND, "1"),
        "delete an unknown": ("no.such.key", _DELETE, None),
        "delete what is not set": ("retention.ms", _DELETE, None),
        "no key": ("", _SET, "1"),
    }.items():
        t.ask(label, "IncrementalAlterConfigs", 1, _alter(_TOPIC, topic, change))
        t.settle()
        t.ask(f"after {label}", "DescribeConfigs", 4, _describe(_TOPIC, topic, [policy, throttled]))
    both = _alter(_TOPIC, topic, (policy, _APPEND, "compact"), (policy, _SUBTRACT, "delete"))
    t.ask("append and subtract", "IncrementalAlterConfigs", 1, both)
    odd = _alter(_TOPIC, topic, ("retention.ms", _SET, "5"), ("segment.ms", _SET, "x"))
    t.ask("one of two is wrong", "IncrementalAlterConfigs", 1, odd)
    several = {"resources": [
        _alter(_TOPIC, topic, ("retention.ms", _SET, "6"))["resources"][0],
        _alter(_TOPIC, "none-such", ("retention.ms", _SET, "6"))["resources"][0],
        _alter(_BROKER, "1", ("no.such.key", _SET, "6"), ("num.io.threads", _SET, "x"))["resources"][0],
    ]}  # fmt: skip
    t.ask("three of which one is right", "IncrementalAlterConfigs", 1, several)
    t.settle()
    t.ask("then", "DescribeConfigs", 4, _describe(_TOPIC, topic, ["retention.ms", "segment.ms"]))


def lists_with_odd_elements(t):
    """Empty, duplicate and spaced elements of every list config that a client can set."""
    topic = t.topic(1)
    keys = {
        (_TOPIC, topic, "cleanup.policy"): ("compact", "delete"),
        (_TOPIC, topic, "leader.replication.throttled.replicas"): ("0:1", "1:1"),
        (_TOPIC, topic, "follower.replication.throttled.replicas"): ("0:1", "*"),
        (_BROKER, "", "log.cleanup.policy"): ("compact", "delete"),
        (_BROKER, "1", "cordoned.log.dirs"): ("*", "*"),
        (_METRICS, t.new_name("lists"), "metrics"): ("a", "b"),
        (_METRICS, t.new_name("lists"), "match"): ("client_id=a", "client_id=b"),
    }
    shapes = ["", ",", "A,", ",A", "A,,B", " A , B ", "A,A", "A , ,", "A,B,,", " "]
    for (kind, name, key), (a, b) in keys.items():
        for shape in shapes:
            value = shape.replace("A", a).replace("B", b)
            for verb, op in ("set", _SET), ("append", _APPEND), ("subtract", _SUBTRACT):
                change = _alter(kind, name, (key, op, value))
                t.ask(f"{verb} {key} {shape!r}", "IncrementalAlterConfigs", 1, change)
                t.settle()
                described = _describe(kind, name, [key], synonyms=False)
                t.ask(f"after {verb} {key} {shape!r}", "DescribeConfigs", 4, described)
        undo = _alter(kind, name, (key, _DELETE, None))
        t.call("IncrementalAlterConfigs", 1, undo)
        t.settle()
    for key in ("cleanup.policy", "leader.replication.throttled.replicas"):
        a, b = keys[(_TOPIC, topic, key)]
        for shape in shapes:
            value = shape.replace("A", a).replace("B", b)
            configs = [{"name": key, "value": value}]
            created = {"name": t.new_name("listed"), "numPartitions": 1, "replicationFactor": 1,
                       "configs": configs}  # fmt: skip
            body = {"timeoutMs": 5000, "topics": [created], "validateOnly": True}
            t.ask(f"create with {key} {shape!r}", "CreateTopics", 7, body)


def values_as_they_are_kept(t):
    """Config values in unusual spellings at creation, and how they are described."""
    values = {"cleanup.policy": " compact , delete ", "preallocate": "TRUE", "retention.ms": " 9 ",
              "compression.type": "gzip", "min.cleanable.dirty.ratio": "1e-1",
              "flush.ms": "0010"}  # fmt: skip
    name = t.new_name("kept")
    configs = [{"name": key, "value": value} for key, value in values.items()]
    t.call("CreateTopics", 7, {"timeoutMs": 5000, "topics": [
        {"name": name, "numPartitions": 1, "replicationFactor": 1, "configs": configs}]})  # fmt: skip
    t.learn_topic(name)
    t.ask("created", "DescribeConfigs", 4, _describe(_TOPIC, name, [*values]))
    for key, value in values.items():
        t.call("IncrementalAlterConfigs", 1, _alter(_TOPIC, name, (key, _SET, f" {value}")))
    t.settle()
    t.ask("set", "DescribeConfigs", 4, _describe(_TOPIC, name, [*values]))


def dynamic_broker_configs(t):
    """Each source of a config value, described for the broker and for a topic."""
    topic = t.topic(1)
    key, of_topic = "log.segment.bytes", "segment.bytes"

    def tell(label):
        t.settle()
        for version in (1, 4):
            for resource in ("1", ""):
                t.ask(f"{label}, broker {resource!r}", "DescribeConfigs", version,
                      _describe(_BROKER, resource, [key]))  # fmt: skip
            t.ask(f"{label}, topic", "DescribeConfigs", version,
                  _describe(_TOPIC, topic, [of_topic]))  # fmt: skip

    tell("by default")
    for label, kind, name, what, value in (
        ("for all brokers", _BROKER, "", key, "1500000"),
        ("for the broker", _BROKER, "1", key, "1600000"),
        ("for the topic", _TOPIC, topic, of_topic, "1700000"),
    ):
        t.ask(label, "IncrementalAlterConfigs", 1, _alter(kind, name, (what, _SET, value)))
        tell(label)
    for label, kind, name, what in (
        ("not for all brokers", _BROKER, "", key),
        ("not for the broker", _BROKER, "1", key),
        ("not for the topic", _TOPIC, topic, of_topic),
    ):
        t.ask(label, "IncrementalAlterConfigs", 1, _alter(kind, name, (what, _DELETE, None)))
        tell(label)
    for what, value in (("log.retention.ms", "5"), ("log.retention.hours", "5"),
                        ("num.partitions", "2"), ("advertised.listeners", "PLAINTEXT://:1"),
                        ("listeners", "PLAINTEXT://:1"), ("max.connections", "5"),
                        ("message.max.bytes", "-1"), ("log.cleaner.threads", "0"),
                        ("num.io.threads", "1000"), ("group.max.size", "9")):  # fmt: skip
        for name in ("", "1"):
            t.ask(f"{what} of {name!r}", "IncrementalAlterConfigs", 1,
                  _alter(_BROKER, name, (what, _SET, value), validate_only=True))  # fmt: skip
