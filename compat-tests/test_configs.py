"""kafka-configs of topics, brokers, the brokers' default, and groups."""

import re

CONFIGS = "kafka-configs"
TOPIC = "--entity-type topics --entity-name"
BROKER = "--entity-type brokers --entity-name 1"
BROKERS = "--entity-type brokers --entity-default"


def shows(text):
    return lambda output: text in output


def lacks(text):
    return lambda output: text not in output


def test_topic(shell):
    shell("kafka-topics --create --topic tuned")
    shell(f"{CONFIGS} --describe {TOPIC} tuned")
    shell(f"{CONFIGS} --alter {TOPIC} tuned --add-config retention.ms=1000,max.message.bytes=4096")
    shell(f"{CONFIGS} --describe {TOPIC} tuned", sort=True, until=shows("retention.ms"))
    shell(f"{CONFIGS} --alter {TOPIC} tuned --delete-config retention.ms")
    shell(f"{CONFIGS} --describe {TOPIC} tuned", until=lacks("retention.ms"))
    shell(f"{CONFIGS} --alter {TOPIC} tuned --delete-config max.message.bytes,retention.ms")
    shell(f"{CONFIGS} --describe {TOPIC} tuned", until=lacks("max.message.bytes"))


def test_topic_lists(shell):
    shell("kafka-topics --create --topic listed")
    shell(f"{CONFIGS} --alter {TOPIC} listed --add-config cleanup.policy=[compact,delete]")
    shell(f"{CONFIGS} --describe {TOPIC} listed", until=shows("compact,delete"))
    shell(f"{CONFIGS} --alter {TOPIC} listed --add-config cleanup.policy=[]")
    shell(f"{CONFIGS} --describe {TOPIC} listed", until=lacks("compact,delete"))


def test_topic_all(shell):
    """Every topic config with its value, its source and its synonyms."""
    shell("kafka-topics --create --topic laid-open --config segment.bytes=2097152")
    shell(f"{CONFIGS} --describe --all {TOPIC} laid-open", sort=True)


def test_topic_refused(shell):
    shell("kafka-topics --create --topic untuned")
    for config in ("retention.ms=soon", "no.such.key=1", "min.insync.replicas=0", "retention.ms=",
                   "cleanup.policy=burn", "compression.type=brotli", "segment.bytes=12",
                   "message.timestamp.type=Sometime", "max.message.bytes=-1"):  # fmt: skip
        shell(f"{CONFIGS} --alter {TOPIC} untuned --add-config {config}")
    shell(f"{CONFIGS} --alter {TOPIC} untuned --delete-config no.such.key")
    shell(f"{CONFIGS} --describe {TOPIC} untuned")


def test_missing_topic(shell):
    shell(f"{CONFIGS} --describe {TOPIC} untold")
    shell(f"{CONFIGS} --alter {TOPIC} untold --add-config retention.ms=1000")


def test_broker(shell):
    key = "log.cleaner.threads"
    describe = f"{CONFIGS} --describe {BROKER}"
    shell(f"{CONFIGS} --alter {BROKER} --add-config {key}=2")
    shell(describe, sort=True, until=shows(key))
    shell(f"{CONFIGS} --alter {BROKER} --delete-config {key}")
    shell(describe, until=lacks(key))


def test_brokers_default(shell):
    """A dynamic default of all brokers. A broker's own value overrides it, its file does not."""
    key = "log.retention.ms"
    describe = f"{CONFIGS} --describe {BROKERS}"
    shell(describe)
    shell(f"{CONFIGS} --alter {BROKERS} --add-config {key}=7200000")
    shell(f"{CONFIGS} --alter {BROKER} --add-config {key}=3600000")
    shell(describe, sort=True, until=shows(key))
    shell(f"{CONFIGS} --describe {BROKER}", sort=True, until=shows(key))
    shell("kafka-topics --create --topic inheriting")
    inherits = shows("retention.ms=3600000")
    shell(f"{CONFIGS} --describe --all {TOPIC} inheriting", sort=True, until=inherits)
    shell(f"{CONFIGS} --alter {BROKER} --delete-config {key}")
    shell(f"{CONFIGS} --alter {BROKERS} --delete-config {key}")
    shell(describe, until=lacks(key))


def test_broker_refused(shell):
    for config in ("node.id=7", "log.dirs=/elsewhere", "log.cleaner.threads=none",
                   "num.io.threads=1000000"):  # fmt: skip
        shell(f"{CONFIGS} --alter {BROKER} --add-config {config}")
    shell(f"{CONFIGS} --describe {BROKER}")


def test_broker_unknown_key(shell):
    """Kafka stores unknown broker keys, because a plug-in may use them."""
    key = "no.such.key"
    shell(f"{CONFIGS} --alter {BROKER} --add-config {key}=1")
    shell(f"{CONFIGS} --describe {BROKER}", until=shows(key))
    shell(f"{CONFIGS} --alter {BROKER} --delete-config {key}")
    shell(f"{CONFIGS} --describe {BROKER}", until=lacks(key))


def test_broker_all(shell, broker):
    """Every broker config with its value, its source and its synonyms."""
    described = shell(f"{CONFIGS} --describe --all {BROKER}", transcript=False).ok()
    rows = [re.sub(r"^ +", "", line) for line in described.lines]
    own = ("listeners", "advertised.listeners", "log.dir", "controller.quorum", "http.listener")
    shell.note("every broker config", sorted(row for row in rows if not row.startswith(own)))


def test_brokers_listed(shell):
    described = shell(f"{CONFIGS} --describe --entity-type brokers", transcript=False).ok()
    assert "Dynamic configs for broker 1 are:" in described.stdout
    assert "Default configs for brokers in the cluster are:" in described.stdout


def test_group(shell):
    key = "consumer.session.timeout.ms"
    group = "--entity-type groups --entity-name configured-group"
    shell(f"{CONFIGS} --describe {group}")
    shell(f"{CONFIGS} --alter {group} --add-config {key}=50000")
    shell(f"{CONFIGS} --describe {group}", until=shows(key))
    shell(f"{CONFIGS} --alter {group} --add-config {key}=1")
    shell(f"{CONFIGS} --alter {group} --delete-config {key}")
    shell(f"{CONFIGS} --describe {group}", until=lacks(key))


def test_takes_effect(shell):
    """A changed topic config is in effect for the next request, without a restart."""
    shell("kafka-topics --create --topic at-once")
    shell("kafka-console-producer --topic at-once", stdin="x" * 5000 + "\n").ok()
    shell(f"{CONFIGS} --alter {TOPIC} at-once --add-config max.message.bytes=1000").ok()
    refused = shell(
        "kafka-console-producer --topic at-once --sync", stdin="x" * 5000 + "\n", transcript=False
    )
    assert "RecordTooLargeException" in refused.stderr
    shell("kafka-get-offsets --topic at-once")
