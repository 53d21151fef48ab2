"""kafka-configs: topics, brokers, the brokers' default, groups; what it sets, shows and refuses."""

import re

CONFIGS = "kafka-configs"
TOPIC = "--entity-type topics --entity-name"
BROKER = "--entity-type brokers --entity-name 1"
BROKERS = "--entity-type brokers --entity-default"


def test_topic(shell):
    shell("kafka-topics --create --topic tuned")
    shell(f"{CONFIGS} --describe {TOPIC} tuned")
    shell(f"{CONFIGS} --alter {TOPIC} tuned --add-config retention.ms=1000,max.message.bytes=4096")
    shell(f"{CONFIGS} --describe {TOPIC} tuned", sort=True)
    shell(f"{CONFIGS} --alter {TOPIC} tuned --delete-config retention.ms")
    shell(f"{CONFIGS} --describe {TOPIC} tuned")
    shell(f"{CONFIGS} --alter {TOPIC} tuned --delete-config max.message.bytes,retention.ms")
    shell(f"{CONFIGS} --describe {TOPIC} tuned")


def test_topic_lists(shell):
    shell("kafka-topics --create --topic listed")
    shell(f"{CONFIGS} --alter {TOPIC} listed --add-config cleanup.policy=[compact,delete]")
    shell(f"{CONFIGS} --describe {TOPIC} listed")
    shell(f"{CONFIGS} --alter {TOPIC} listed --add-config cleanup.policy=[]")
    shell(f"{CONFIGS} --describe {TOPIC} listed")


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
    add = f"{CONFIGS} --alter {BROKER} --add-config"
    shell(f"{add} log.cleaner.threads=2")
    shell(f"{CONFIGS} --describe {BROKER}", sort=True)
    shell(f"{CONFIGS} --alter {BROKER} --delete-config log.cleaner.threads")
    shell(f"{CONFIGS} --describe {BROKER}")


def test_brokers_default(shell):
    """A default for all brokers, below a broker's own value and above its file."""
    shell(f"{CONFIGS} --describe {BROKERS}")
    shell(f"{CONFIGS} --alter {BROKERS} --add-config log.retention.ms=7200000")
    shell(f"{CONFIGS} --alter {BROKER} --add-config log.retention.ms=3600000")
    shell(f"{CONFIGS} --describe {BROKERS}")
    shell(f"{CONFIGS} --describe {BROKER}", sort=True)
    shell("kafka-topics --create --topic inheriting")
    shell(f"{CONFIGS} --describe --all {TOPIC} inheriting", sort=True)
    shell(f"{CONFIGS} --alter {BROKER} --delete-config log.retention.ms")
    shell(f"{CONFIGS} --alter {BROKERS} --delete-config log.retention.ms")
    shell(f"{CONFIGS} --describe {BROKERS}")


def test_broker_refused(shell):
    for config in ("node.id=7", "log.dirs=/elsewhere", "log.cleaner.threads=none",
                   "num.io.threads=1000000"):  # fmt: skip
        shell(f"{CONFIGS} --alter {BROKER} --add-config {config}")
    shell(f"{CONFIGS} --describe {BROKER}")


def test_broker_unknown_key(shell):
    """Kafka keeps a broker key that it does not know: it may belong to a plug-in."""
    shell(f"{CONFIGS} --alter {BROKER} --add-config no.such.key=1")
    shell(f"{CONFIGS} --describe {BROKER}")
    shell(f"{CONFIGS} --alter {BROKER} --delete-config no.such.key")
    shell(f"{CONFIGS} --describe {BROKER}")


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
    group = "--entity-type groups --entity-name configured-group"
    shell(f"{CONFIGS} --describe {group}")
    shell(f"{CONFIGS} --alter {group} --add-config consumer.session.timeout.ms=50000")
    shell(f"{CONFIGS} --describe {group}")
    shell(f"{CONFIGS} --alter {group} --add-config consumer.session.timeout.ms=1")
    shell(f"{CONFIGS} --alter {group} --delete-config consumer.session.timeout.ms")
    shell(f"{CONFIGS} --describe {group}")


def test_takes_effect(shell):
    """A changed topic config governs the next request, without a restart."""
    shell("kafka-topics --create --topic at-once")
    shell("kafka-console-producer --topic at-once", stdin="x" * 5000 + "\n").ok()
    shell(f"{CONFIGS} --alter {TOPIC} at-once --add-config max.message.bytes=1000").ok()
    refused = shell(
        "kafka-console-producer --topic at-once --sync", stdin="x" * 5000 + "\n", transcript=False
    )
    assert "RecordTooLargeException" in refused.stderr
    shell("kafka-get-offsets --topic at-once")
