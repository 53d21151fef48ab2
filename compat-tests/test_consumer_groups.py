"""kafka-consumer-groups and kafka-groups: list, describe, reset, delete."""

import re
import time

import pytest

GROUPS = "kafka-consumer-groups"


@pytest.fixture
def consumed(shell, request):
    """A topic with ten records in one partition, and an empty group that has read six of them."""
    name = re.sub(r"[^a-z]+", "-", request.node.name.removeprefix("test_")).strip("-")
    topic, group = f"t-{name}", f"g-{name}"
    shell(f"kafka-topics --create --topic {topic}").ok()
    shell(f"kafka-console-producer --topic {topic}", stdin="".join(f"{n}\n" for n in range(10))).ok()
    shell(
        f"kafka-console-consumer --topic {topic} --group {group} --from-beginning"
        " --max-messages 6 --timeout-ms 20000"
    ).ok()
    return topic, group


def wait_for(what, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def test_describe(shell, consumed):
    _, group = consumed
    shell(f"{GROUPS} --describe --group {group}")
    shell(f"{GROUPS} --describe --group {group} --offsets --verbose")
    shell(f"{GROUPS} --describe --group {group} --members")
    shell(f"{GROUPS} --describe --group {group} --members --verbose")
    shell(f"{GROUPS} --describe --group {group} --state")
    shell(f"{GROUPS} --describe --group {group} --state --verbose")


def test_describe_missing(shell):
    shell(f"{GROUPS} --describe --group never-there")
    shell(f"{GROUPS} --describe --group never-there --members")
    shell(f"{GROUPS} --describe --group never-there --state")


def test_list(shell, consumed):
    _, group = consumed
    for options in ("", "--state", "--state Empty", "--type", "--type classic"):
        listed = shell(f"{GROUPS} --list {options}", transcript=False).ok()
        assert any(line.split()[:1] == [group] for line in listed.lines), listed.stdout
    for options in ("--state Stable", "--type consumer"):
        listed = shell(f"{GROUPS} --list {options}", transcript=False).ok()
        assert not any(line.split()[:1] == [group] for line in listed.lines), listed.stdout
    listed = shell("kafka-groups --list", transcript=False).ok()
    assert [group, "Classic", "consumer"] in [line.split() for line in listed.lines]


def test_live_members(shell):
    """A group with live members: members, assignments, coordinator, and refused changes."""
    shell("kafka-topics --create --topic live --partitions 2").ok()
    shell("kafka-console-producer --topic live", stdin="a\nb\n").ok()
    member = shell.start(
        "kafka-console-consumer --topic live --group live-group --from-beginning"
        " --command-property client.id=live-client --command-property auto.commit.interval.ms=200"
    )
    describe = f"{GROUPS} --describe --group live-group"

    def is_caught_up():
        lines = shell(describe, transcript=False).lines
        rows = [line.split() for line in lines if line.startswith("live-group")]
        return len(rows) == 2 and all(row[5] == "0" for row in rows)

    wait_for(is_caught_up)
    for options in ("--members", "--members --verbose", "--state"):
        shell(f"{describe} {options}")
    shell(f"{GROUPS} --list --state Stable", transcript=False).ok()
    shell(f"{GROUPS} --delete --group live-group")
    shell(f"{GROUPS} --reset-offsets --group live-group --topic live --to-earliest --execute")
    shell(f"{GROUPS} --delete-offsets --group live-group --topic live")
    member.stop().ok()
    shell(f"{describe} --state")


WAYS = {
    "earliest": "--to-earliest",
    "latest": "--to-latest",
    "current": "--to-current",
    "offset": "--to-offset 3",
    "offset-too-high": "--to-offset 99",
    "forward": "--shift-by 2",
    "back": "--shift-by -2",
    "too-far-back": "--shift-by -99",
    "datetime-past": "--to-datetime 2020-01-01T00:00:00.000",
    "datetime-future": "--to-datetime 2199-01-01T00:00:00.000",
    "duration": "--by-duration P1D",
    "duration-none": "--by-duration PT0S",
}


@pytest.mark.parametrize("way", WAYS)
def test_reset_offsets(shell, consumed, way):
    topic, group = consumed
    reset = f"{GROUPS} --reset-offsets --group {group} {WAYS[way]}"
    shell(f"{reset} --topic {topic} --dry-run")
    shell(f"{reset} --topic {topic}:0 --execute")
    shell(f"{GROUPS} --describe --group {group}")


def test_reset_offsets_from_file(shell, consumed, broker):
    _, group = consumed
    reset = f"{GROUPS} --reset-offsets --group {group}"
    exported = shell(f"{reset} --all-topics --to-offset 4 --dry-run --export")
    plan = broker.dir / "plan.csv"
    plan.write_text(exported.stdout)
    shell(f"{reset} --from-file {plan} --execute")
    shell(f"{GROUPS} --describe --group {group}")


def test_reset_offsets_of_a_new_group(shell):
    shell("kafka-topics --create --topic preset --partitions 2")
    shell(f"{GROUPS} --reset-offsets --group preset-group --topic preset --to-earliest --execute")
    shell(f"{GROUPS} --describe --group preset-group", sort=True)


def test_delete_offsets(shell, consumed):
    topic, group = consumed
    shell(f"{GROUPS} --delete-offsets --group {group} --topic no-such-topic")
    shell(f"{GROUPS} --delete-offsets --group {group} --topic {topic}:0")
    shell(f"{GROUPS} --describe --group {group}")
    shell(f"{GROUPS} --delete-offsets --group no-such-group --topic {topic}")


def test_delete(shell, consumed):
    _, group = consumed
    shell(f"{GROUPS} --delete --group {group} --group no-such-group")
    shell(f"{GROUPS} --delete --group {group}")
    listed = shell(f"{GROUPS} --list", transcript=False).ok()
    assert group not in listed.lines
    shell(f"{GROUPS} --describe --group {group}")


def test_validate_regex(shell):
    shell(f"{GROUPS} --validate-regex 'orders-[0-9]+'")
