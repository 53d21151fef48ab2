"""Log levels: DescribeConfigs, IncrementalAlterConfigs and AlterConfigs of broker loggers."""

_TOPIC, _LOGGER = 2, 8
_SET, _DELETE, _APPEND, _SUBTRACT = 0, 1, 2, 3
# Also listed in `harness/log4j2.yaml`.
_NAMES = [
    "kafka",
    "kafka.network.SocketServer",
    "kafka.server.KafkaApis",
    "org.apache.kafka",
    "org.apache.kafka.controller",
    "org.apache.kafka.controller.QuorumController",
    "root",
    "state.change.logger",
]
_API, _CONTROLLER = _NAMES[2], _NAMES[4]


def _describe(name="1", keys=_NAMES):
    resource = {"resourceType": _LOGGER, "resourceName": name, "configurationKeys": keys}
    return {"resources": [resource], "includeSynonyms": True, "includeDocumentation": True}


def _resource(*changes, name="1", kind=_LOGGER):
    configs = [
        {"name": logger, "configOperation": operation, "value": level}
        for logger, operation, level in changes
    ]
    return {"resourceType": kind, "resourceName": name, "configs": configs}


def _alter(*changes, name="1", **fields):
    return {"resources": [_resource(*changes, name=name)], **fields}


def _levels(t, label):
    """Adds the effective levels of all loggers to the transcript, in one line."""
    answer = t.call("DescribeConfigs", 4, _describe())
    configs = answer["results"][0]["configs"]
    t.note(label, {it["name"]: it["value"] for it in sorted(configs, key=lambda it: it["name"])})


def describe(t):
    t.ask_all("some", "DescribeConfigs", _describe())
    for name in ("01", "+1", " 1", "2", "x", "", "99999999999"):
        t.ask(f"of {name!r}", "DescribeConfigs", 4, _describe(name, ["root"]))
    t.ask("no such", "DescribeConfigs", 4, _describe(keys=["kafka.none"]))


def alter(t):
    steps = {
        "set": [(_API, _SET, "DEBUG")],
        "set it again": [(_API, _SET, "DEBUG")],
        "delete": [(_API, _DELETE, None)],
        "delete what is not set": [(_API, _DELETE, None)],
        "delete with a value": [(_API, _DELETE, "DEBUG")],
        "a parent": [("kafka", _SET, "DEBUG")],
        "below a parent": [(_API, _SET, "ERROR")],
        "the parent again": [("kafka", _SET, "TRACE")],
        "root": [("root", _SET, "WARN")],
        "below root": [("org.apache.kafka", _SET, "TRACE"), (_CONTROLLER, _SET, "FATAL")],
        "the middle": [("org.apache.kafka", _DELETE, None)],
        "the parent goes": [("kafka", _DELETE, None)],
        "delete root": [("root", _DELETE, None)],
        "root and another": [(_API, _SET, "INFO"), ("root", _DELETE, None)],
        "one of two is wrong": [("kafka", _SET, "INFO"), (_API, _SET, "info")],
        "none": [],
        "all are back": [
            ("root", _SET, "INFO"), (_API, _DELETE, None), (_CONTROLLER, _DELETE, None),
        ],
    }  # fmt: skip
    for label, changes in steps.items():
        t.ask(label, "IncrementalAlterConfigs", 1, _alter(*changes))
        _levels(t, f"after {label}")
    for version in (0, 1):
        t.ask("checked", "IncrementalAlterConfigs", version,
              _alter((_API, _SET, "DEBUG"), validateOnly=True))  # fmt: skip
    t.ask("checked, wrong", "IncrementalAlterConfigs", 1,
          _alter((_API, _SET, "LOUD"), validateOnly=True))  # fmt: skip
    _levels(t, "after checks")


def levels(t):
    names = ("FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
    for level in (*names, "OFF", "ALL", "debug", "Debug", " DEBUG", "5", "", None):
        change = (_API, _SET, level)
        t.ask(f"to {level!r}", "IncrementalAlterConfigs", 1, _alter(change))
        _levels(t, f"after {level!r}")
    t.ask("back", "IncrementalAlterConfigs", 1, _alter((_API, _DELETE, None)))


def refused(t):
    for label, change in {
        "append": (_API, _APPEND, "DEBUG"),
        "subtract": (_API, _SUBTRACT, "DEBUG"),
        "append to no logger": ("kafka.none", _APPEND, "DEBUG"),
        "unknown operation": (_API, 9, "DEBUG"),
        "negative operation": (_API, -1, "DEBUG"),
        "unknown operation on no logger": ("kafka.none", 9, "DEBUG"),
        "no such logger": ("kafka.none", _SET, "DEBUG"),
        "no such logger, no such level": ("kafka.none", _SET, "LOUD"),
        "delete no such logger": ("kafka.none", _DELETE, None),
        "no name": ("", _SET, "DEBUG"),
        "a prefix": ("org.apache", _SET, "DEBUG"),
        "another case": ("KAFKA", _SET, "DEBUG"),
        "null": (_API, _SET, None),
    }.items():
        t.ask(label, "IncrementalAlterConfigs", 1, _alter(change))
    for name in ("01", "+1", " 1", "2", "002", "x", "", "99999999999"):
        body = _alter((_API, _SET, "INFO"), name=name)
        t.ask(f"of {name!r}", "IncrementalAlterConfigs", 1, body)
    one = (_API, _SET, "DEBUG")
    t.ask("a logger twice", "IncrementalAlterConfigs", 1, _alter(one, (_API, _DELETE, None)))
    t.ask("a broker twice", "IncrementalAlterConfigs", 1, {"resources": [_resource(one)] * 2})
    _levels(t, "after all")
    topic = t.topic(1)
    t.ask("with a topic", "IncrementalAlterConfigs", 1, {"resources": [
        _resource((_API, _SET, "TRACE")),
        _resource(("retention.ms", _SET, "9000"), name=topic, kind=_TOPIC),
        _resource(one, name="2"),
    ]})  # fmt: skip
    _levels(t, "then")
    t.ask("back", "IncrementalAlterConfigs", 1, _alter((_API, _DELETE, None)))
    legacy = {"resourceType": _LOGGER, "resourceName": "1",
              "configs": [{"name": _API, "value": "DEBUG"}]}  # fmt: skip
    t.ask_all("legacy", "AlterConfigs", {"resources": [legacy]})
