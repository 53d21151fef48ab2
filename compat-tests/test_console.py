"""kafka-console-producer and kafka-console-consumer."""

import pytest

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ALL = "--from-beginning --timeout-ms 20000"


def numbered(count, prefix="v"):
    return "".join(f"{prefix}{n}\n" for n in range(count))


def test_as_separate_processes(shell):
    """Produces to a topic that does not exist yet and consumes from it, each as a process."""
    shell("kafka-console-producer --topic first-steps", stdin="hello\nworld\n", process=True)
    consumer = f"kafka-console-consumer --topic first-steps {ALL} --max-messages 2"
    shell(consumer, process=True)


def test_keys_and_headers(shell):
    shell("kafka-topics --create --topic keyed")
    shell(
        "kafka-console-producer --topic keyed --reader-property parse.key=true"
        " --reader-property parse.headers=true --reader-property null.marker=NULL",
        stdin="h1:a,h2:b\tk1\tv1\nh1:,h1:twice\tk2\tNULL\nNULL\tNULL\tonly a value\n",
    )
    properties = "".join(
        f" --formatter-property print.{what}=true"
        for what in ("key", "headers", "offset", "partition", "epoch", "delivery")
    )
    shell(f"kafka-console-consumer --topic keyed {ALL} --max-messages 3{properties}")


def test_timestamps(shell):
    shell("kafka-topics --create --topic created-at")
    shell("kafka-topics --create --topic appended-at --config message.timestamp.type=LogAppendTime")
    for topic in ("created-at", "appended-at"):
        shell(f"kafka-console-producer --topic {topic}", stdin="now\n")
        shell(
            f"kafka-console-consumer --topic {topic} {ALL} --max-messages 1"
            " --formatter-property print.timestamp=true"
        )


@pytest.mark.parametrize("codec", CODECS)
def test_compression(shell, codec):
    shell(f"kafka-topics --create --topic packed-{codec}")
    lines = numbered(500)
    shell(f"kafka-console-producer --topic packed-{codec} --compression-codec {codec}", stdin=lines)
    consumer = f"kafka-console-consumer --topic packed-{codec} {ALL} --max-messages 500"
    assert shell(consumer, transcript=False).ok().stdout == lines


@pytest.mark.parametrize("codec", [*CODECS[1:], "uncompressed"])
def test_compression_of_the_topic(shell, codec):
    """The broker recompresses batches if the topic has another codec than the producer."""
    shell(f"kafka-topics --create --topic repacked-{codec} --config compression.type={codec}")
    lines = numbered(200)
    for sent in ("none", "gzip"):
        producer = f"kafka-console-producer --topic repacked-{codec} --compression-codec {sent}"
        shell(producer, stdin=lines).ok()
    consumer = f"kafka-console-consumer --topic repacked-{codec} {ALL} --max-messages 400"
    assert shell(consumer, transcript=False).ok().stdout == lines * 2


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(shell, acks):
    shell(f"kafka-topics --create --topic acks-{acks}")
    shell(
        f"kafka-console-producer --topic acks-{acks} --command-property acks={acks}"
        f" --command-property enable.idempotence={'true' if acks == 'all' else 'false'}",
        stdin=numbered(3),
    )
    shell(f"kafka-console-consumer --topic acks-{acks} {ALL} --max-messages 3")


def test_partition_and_offset(shell):
    shell("kafka-topics --create --topic addressed --partitions 2")
    shell("kafka-console-producer --topic addressed", stdin=numbered(5))
    seen = []
    for partition in (0, 1):
        consumer = f"kafka-console-consumer --topic addressed --partition {partition}"
        seen += shell(f"{consumer} --offset earliest --timeout-ms 2000", transcript=False).lines
    assert sorted(seen) == numbered(5).split()
    shell("kafka-topics --create --topic addressed-1")
    shell("kafka-console-producer --topic addressed-1", stdin=numbered(5))
    consumer = "kafka-console-consumer --topic addressed-1 --partition 0"
    shell(f"{consumer} --offset 3 --max-messages 2 --timeout-ms 20000")
    shell(f"{consumer} --offset latest --timeout-ms 1500")
    shell(f"{consumer} --offset 99 --timeout-ms 1500")


def test_skips_what_is_past_with_a_group(shell):
    shell("kafka-topics --create --topic resumed")
    shell("kafka-console-producer --topic resumed", stdin=numbered(6))
    consumer = "kafka-console-consumer --topic resumed --group resumer --timeout-ms 20000"
    shell(f"{consumer} --from-beginning --max-messages 4")
    shell(f"{consumer} --from-beginning --max-messages 2")


def test_include_pattern(shell):
    for name in ("pattern-a", "pattern-b", "other-pattern"):
        shell(f"kafka-topics --create --topic {name}")
        shell(f"kafka-console-producer --topic {name}", stdin=f"from {name}\n")
    shell(f"kafka-console-consumer --include 'pattern-.*' {ALL} --max-messages 2", sort=True)


def test_large_message(shell):
    shell("kafka-topics --create --topic large --config max.message.bytes=3000000")
    line = "x" * 2_500_000 + "\n"
    producer = "kafka-console-producer --topic large --command-property max.request.size=4000000"
    shell(producer, stdin=line).ok()
    consumer = f"kafka-console-consumer --topic large {ALL} --max-messages 1"
    assert shell(consumer, transcript=False).ok().stdout == line


def test_too_large_message(shell):
    shell("kafka-topics --create --topic small --config max.message.bytes=1000")
    refused = shell(
        "kafka-console-producer --topic small --sync", stdin="x" * 5000 + "\n", transcript=False
    )
    assert "RecordTooLargeException" in refused.stderr
    shell("kafka-get-offsets --topic small")


def test_unknown_topic_without_creation(shell):
    consumer = "kafka-console-consumer --topic nowhere-to-be-seen --partition 0 --offset 0"
    shell(f"{consumer} --timeout-ms 1000 --command-property allow.auto.create.topics=false")


def test_read_committed(shell):
    shell("kafka-topics --create --topic committed-only")
    shell("kafka-console-producer --topic committed-only", stdin=numbered(3))
    shell(
        f"kafka-console-consumer --topic committed-only {ALL} --max-messages 3"
        " --isolation-level read_committed"
    )
