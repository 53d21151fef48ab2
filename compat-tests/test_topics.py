"""kafka-topics: create, list, describe, alter, delete, and its errors."""


def test_create_and_describe(shell):
    shell("kafka-topics --create --topic created --partitions 3 --replication-factor 1")
    shell("kafka-topics --describe --topic created")
    shell("kafka-topics --create --topic created-by-default")
    shell("kafka-topics --describe --topic created-by-default")


def test_create_with_configs(shell):
    shell(
        "kafka-topics --create --topic configured --config retention.ms=600000"
        " --config cleanup.policy=delete --config max.message.bytes=2000000"
    )
    shell("kafka-topics --describe --topic configured")
    shell("kafka-topics --describe --topics-with-overrides --topic configured")


def test_create_with_assignment(shell):
    shell("kafka-topics --create --topic assigned --replica-assignment 1,1")
    shell("kafka-topics --describe --topic assigned")
    shell("kafka-topics --create --topic assigned-elsewhere --replica-assignment 1,7")


def test_create_existing(shell):
    shell("kafka-topics --create --topic existing")
    shell("kafka-topics --create --topic existing")
    shell("kafka-topics --create --if-not-exists --topic existing --partitions 5")
    shell("kafka-topics --describe --topic existing")


def test_create_refused(shell):
    shell("kafka-topics --create --topic 'bad name'")
    shell("kafka-topics --create --topic ..")
    shell(f"kafka-topics --create --topic {'x' * 250}")
    shell("kafka-topics --create --topic no-partitions --partitions 0")
    shell("kafka-topics --create --topic two-replicas --replication-factor 2")
    shell("kafka-topics --create --topic bad-value --config retention.ms=soon")
    shell("kafka-topics --create --topic bad-key --config no.such.key=1")
    shell("kafka-topics --create --topic bad-policy --config cleanup.policy=burn")
    shell("kafka-topics --create --topic bad-range --config min.insync.replicas=0")


def test_name_collision(shell):
    shell("kafka-topics --create --topic col.li_ding")
    shell("kafka-topics --create --topic col_li.ding")


def test_list(shell):
    for name in ("list-b", "list-a", "list-c"):
        shell(f"kafka-topics --create --topic {name}")
    shell("kafka-topics --list --topic 'list-.*'")
    shell("kafka-topics --list --exclude-internal --topic list-a")
    shell("kafka-topics --list --topic no-such-list")


def test_describe_filters(shell):
    shell("kafka-topics --create --topic filtered --partitions 2")
    shell("kafka-topics --describe --under-replicated-partitions --topic filtered")
    shell("kafka-topics --describe --unavailable-partitions --topic filtered")
    shell("kafka-topics --describe --under-min-isr-partitions --topic filtered")
    shell("kafka-topics --describe --at-min-isr-partitions --topic filtered")
    shell("kafka-topics --describe --topic filtered --partition-size-limit-per-response 1")


def test_describe_by_id(shell):
    shell("kafka-topics --create --topic by-id --partitions 2")
    described = shell("kafka-topics --describe --topic by-id")
    topic_id = described.stdout.split("TopicId: ")[1].split()[0]
    shell(f"kafka-topics --describe --topic-id {topic_id}")
    shell("kafka-topics --describe --topic-id AAAAAAAAAAAAAAAAAAAAfw")


def test_describe_missing(shell):
    shell("kafka-topics --describe --topic missing")
    shell("kafka-topics --describe --if-exists --topic missing")


def test_add_partitions(shell):
    shell("kafka-topics --create --topic growing --partitions 1")
    shell("kafka-topics --alter --topic growing --partitions 3")
    shell("kafka-topics --describe --topic growing")
    shell("kafka-topics --alter --topic growing --partitions 3")
    shell("kafka-topics --alter --topic growing --partitions 2")
    shell("kafka-topics --alter --topic growing --partitions 4 --replica-assignment 1,1,1,9")
    shell("kafka-topics --alter --topic growing --partitions 4 --replica-assignment 1,1,1,1")
    shell("kafka-topics --describe --topic growing")
    shell("kafka-topics --alter --topic not-growing --partitions 3")
    shell("kafka-topics --alter --if-exists --topic not-growing --partitions 3")


def test_delete(shell):
    for name in ("doomed-1", "doomed-2", "spared"):
        shell(f"kafka-topics --create --topic {name}")
    shell("kafka-topics --delete --topic 'doomed-.*'")
    shell("kafka-topics --list --topic 'doomed-.*|spared'")
    shell("kafka-topics --delete --topic doomed-1")
    shell("kafka-topics --delete --if-exists --topic doomed-1")


def test_create_again_after_delete(shell):
    """A recreated topic is empty and has another id."""
    shell("kafka-topics --create --topic reborn").ok()
    ids = set()
    for _ in range(2):
        described = shell("kafka-topics --describe --topic reborn").ok()
        ids.add(described.stdout.split("TopicId: ")[1].split()[0])
        shell("kafka-console-producer --topic reborn", stdin="one\n").ok()
        shell("kafka-get-offsets --topic reborn").ok()
        shell("kafka-topics --delete --topic reborn").ok()
        shell("kafka-topics --create --topic reborn").ok()
    assert len(ids) == 2
