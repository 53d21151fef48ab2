"""Kafka's tools for load tests: they succeed and report the right counts."""

import json


def test_producer_and_consumer_perf(shell):
    shell("kafka-topics --create --topic perf --partitions 3")
    produced = shell(
        "kafka-producer-perf-test --topic perf --num-records 30000 --record-size 200"
        " --throughput -1 --command-property acks=all",
        transcript=False,
    ).ok()
    assert produced.lines[-1].startswith("30000 records sent"), produced.stdout
    shell("kafka-get-offsets --topic perf --time earliest")
    consumed = shell(
        "kafka-consumer-perf-test --topic perf --num-records 30000 --timeout 20000",
        transcript=False,
    ).ok()
    header, row = (line.split(", ") for line in consumed.lines[-2:])
    assert row[header.index("data.consumed.in.nMsg")] == "30000", consumed.stdout


def events(result):
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_verifiable_producer_and_consumer(shell):
    shell("kafka-topics --create --topic verified --partitions 2")
    produced = shell(
        "kafka-verifiable-producer --topic verified --max-messages 400 --throughput 4000 --acks -1",
        transcript=False,
        process=True,  # it reports in a shutdown hook of its JVM
    ).ok()
    (summary,) = [event for event in events(produced) if event["name"] == "tool_data"]
    assert (summary["sent"], summary["acked"]) == (400, 400)
    consumed = shell(
        "kafka-verifiable-consumer --topic verified --group-id verifier --max-messages 400"
        " --reset-policy earliest",
        transcript=False,
    ).ok()
    counted = sum(e["count"] for e in events(consumed) if e["name"] == "records_consumed")
    assert counted == 400
    commits = [e for e in events(consumed) if e["name"] == "offsets_committed"]
    assert commits and all(e["success"] for e in commits), commits
    shell("kafka-consumer-groups --describe --group verifier", transcript=False).ok()


def test_end_to_end_latency(shell):
    shell("kafka-topics --create --topic round-trips")
    measured = shell(
        "kafka-e2e-latency --topic round-trips --num-records 50 --producer-acks all"
        " --record-size 100",
        transcript=False,
    ).ok()
    assert "Avg latency:" in measured.stdout
    shell("kafka-get-offsets --topic round-trips")
