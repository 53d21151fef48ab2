"""kafka-get-offsets and kafka-delete-records."""

import json


def write(shell, topic, count):
    shell(f"kafka-console-producer --topic {topic}", stdin="".join(f"{n}\n" for n in range(count)))


def test_every_time(shell):
    shell("kafka-topics --create --topic timed")
    write(shell, "timed", 5)
    shell("kafka-topics --create --topic timed-empty")
    for time in ("latest", "earliest", "max-timestamp", "earliest-local", "latest-tiered",
                 "earliest-pending-upload", "-1", "-2", "-3", "-4", "-5", "-6", "0", "1577836800000",
                 "7258118400000", "soon"):  # fmt: skip
        # Which record is the latest depends on the clock here. The Java tests set the timestamps.
        by_clock = time in ("max-timestamp", "-3")
        for topic in ("timed-empty",) if by_clock else ("timed", "timed-empty"):
            shell(f"kafka-get-offsets --topic {topic} --time {time}")


def test_selection(shell):
    for topic in ("chosen-a", "chosen-b"):
        shell(f"kafka-topics --create --topic {topic} --partitions 3")
    shell("kafka-get-offsets --topic 'chosen-.*'")
    shell("kafka-get-offsets --topic chosen-a --partitions 0,2")
    shell("kafka-get-offsets --topic-partitions chosen-a:1-,chosen-b:0")
    shell("kafka-get-offsets --topic 'chosen-.*' --exclude-internal-topics")
    shell("kafka-get-offsets --topic not-chosen")


def test_by_timestamp(shell):
    """The offset of the first record at or after a timestamp, with records of known timestamps."""
    shell("kafka-topics --create --topic by-time --config message.timestamp.type=LogAppendTime")
    times = []
    for n in range(3):
        write(shell, "by-time", 1)
        read = shell(
            f"kafka-console-consumer --topic by-time --partition 0 --offset {n} --max-messages 1"
            " --formatter-property print.timestamp=true --timeout-ms 20000",
            transcript=False,
        ).ok()
        times.append(int(read.stdout.split(":")[1].split()[0]))
    for n, time in enumerate(times):
        found = shell(f"kafka-get-offsets --topic by-time --time {time}", transcript=False).ok()
        first_at_that_time = times.index(time)
        assert found.stdout.strip() == f"by-time:0:{first_at_that_time}", (n, times)
    after = shell(f"kafka-get-offsets --topic by-time --time {times[-1] + 1}", transcript=False)
    assert after.ok().stdout.strip() in ("", "by-time:0:")


def delete_records(shell, broker, topic, *offsets, **more):
    plan = broker.dir / f"delete-{topic}.json"
    partitions = [{"topic": topic, "partition": p, "offset": o} for p, o in offsets]
    plan.write_text(json.dumps({"partitions": partitions, "version": 1, **more}))
    return shell(f"kafka-delete-records --offset-json-file {plan}")


def test_delete_records(shell, broker):
    shell("kafka-topics --create --topic trimmed")
    write(shell, "trimmed", 10)
    delete_records(shell, broker, "trimmed", (0, 4))
    shell("kafka-get-offsets --topic trimmed --time earliest")
    shell("kafka-console-consumer --topic trimmed --from-beginning --max-messages 6 --timeout-ms 9000")
    delete_records(shell, broker, "trimmed", (0, 2))
    delete_records(shell, broker, "trimmed", (0, 99))
    delete_records(shell, broker, "trimmed", (0, -1))
    shell("kafka-get-offsets --topic trimmed --time earliest")
    shell("kafka-get-offsets --topic trimmed --time latest")
    delete_records(shell, broker, "trimmed", (0, 1), version=9)
