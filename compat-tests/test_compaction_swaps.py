"""Directories of a broker that was killed while it replaced segments, opened by either broker.

Apache Kafka and Sordini each compact a copy of one directory, and inotify tells in which order they
rename the files. A kill keeps what was renamed before it, so each prefix of that order is the
directory of a broker that was killed there. Every such directory becomes a partition of one topic,
so that one start of a broker opens all of them.
"""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from harness.broker import KAFKA_KIND, SORDINI_KIND, Broker
from harness.renames import Renames
from harness.segments import checkpoint
from harness.topics import read_to_end, set_configs
from harness.transactions import transactional
from test_compaction_beside_kafka import ALWAYS, NEVER, TIMEOUT_S

TOPIC = "swaps"
SETTINGS = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "log.cleaner.backoff.ms": "100",
    # Longer than the test, so that replaced segments stay as `.deleted` files.
    "log.segment.delete.delay.ms": "600000",
}
KINDS = (KAFKA_KIND, SORDINI_KIND)
KEPT = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
RECOVERY_POINTS = "recovery-point-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"


def produce(producer, rows):
    for key, value in rows:
        producer.produce(TOPIC, key=key, value=value, partition=0)
    assert producer.flush(TIMEOUT_S) == 0


def write(broker):
    """Writes segments of which a round makes two, with aborted transactions and a tombstone."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {
        "cleanup.policy": "compact",
        "internal.segment.bytes": "1000",
        "segment.index.bytes": "10000",
        "index.interval.bytes": "300",
    }
    admin.create_topics([NewTopic(TOPIC, 1, 1, config=config)])[TOPIC].result(TIMEOUT_S)
    plain = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    for n in range(9):
        values = [(b"k%d" % ((n + m) % 7), b"%d-%d-" % (n, m) + b"v" * 60) for m in range(3)]
        produce(plain, values)
        produce(plain, [(b"once-%d" % n, b"v"), (b"k1" if n == 4 else b"gone", None)])
        if n in (2, 7):
            # Its empty last batch stays, and with it an entry of the transaction index.
            producer = transactional(broker.bootstrap, f"{TOPIC}-{n}")
            producer.begin_transaction()
            produce(producer, [(b"k0", b"aborted")])
            producer.abort_transaction(TIMEOUT_S)
    set_configs(broker, TOPIC, {"internal.segment.bytes": "3000"})


def read(broker, count, isolation):
    """Returns the records of each partition: (offset, key, value)."""
    found = [[] for _ in range(count)]
    for it in read_to_end(broker, [(TOPIC, partition) for partition in range(count)], isolation):
        found[it.partition()].append((it.offset(), it.key(), it.value()))
    return found


def reads(broker, count):
    """Returns the records of each partition that consumers of either isolation level read."""
    levels = ("read_committed", "read_uncommitted")
    return list(zip(*(read(broker, count, isolation) for isolation in levels)))


def wait_for_rounds(broker, count):
    """Waits until the broker has compacted all partitions up to the active segment."""

    def is_done():
        reached = checkpoint(broker.data / "cleaner-offset-checkpoint")
        return all(reached.get(f"{TOPIC}-{at}", -1) >= active(broker, at) for at in range(count))

    deadline = time.monotonic() + TIMEOUT_S
    while not is_done():
        assert time.monotonic() < deadline, broker.log_tail()
        time.sleep(0.1)


def directory(broker, partition=0):
    return broker.data / f"{TOPIC}-{partition}"


def active(broker, partition):
    return max(int(log.stem) for log in directory(broker, partition).glob("*.log"))


def names_in(folder):
    return {it.name for it in folder.iterdir() if it.name[:20].isdigit()}


def files(folder):
    """Returns the contents of all files that are named by an offset."""
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


def states_of_kills(before, renames, after):
    """Returns the files that a kill leaves: one after each of the renames, and one while a new file
    is written."""
    # A running broker may keep larger index files for the active segment.
    active = max(name[:20] for name in before if name.endswith(".log"))
    now = before | {name: after[name] for name in before if name[:20] == active}
    states = [dict(now)]
    for former, name in renames:
        if not (former or name)[:20].isdigit():
            continue
        if former is not None:
            content = now.pop(former)
        else:
            content = after[name.removesuffix(".cleaned")]
            if name.endswith(".log.cleaned"):
                states.append({**now, name: content[: len(content) // 2]})
        if name is not None:
            now[name] = content
        states.append(dict(now))
    assert now.keys() == after.keys(), "the files afterwards are those of the renames"
    return states


@pytest.fixture
def make(kind, tmp_path, monkeypatch):
    """Makes brokers that begin with a copy of a directory. They are killed at the end."""
    if kind != SORDINI_KIND:
        pytest.skip("about Sordini")
    # The brokers live for seconds only.
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    made = []

    def make(kind, name, source=None, **settings):
        broker = Broker(kind, tmp_path / name, **SETTINGS)
        broker.settings |= settings
        if source is not None:
            assert source.process is None
            shutil.copytree(source.data, broker.data)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.kill()


def round_of(broker):
    """Lets a broker compact its directory. Returns the states of kills, and what consumers read."""
    before = files(directory(broker))
    renames = Renames(directory(broker))
    broker.start()
    wait_for_rounds(broker, 1)
    states = states_of_kills(before, renames.take(), files(directory(broker)))
    renames.close()
    (records,) = reads(broker, 1)
    assert broker.stop() in (0, 143)
    return states, records


def add_partitions(broker, count):
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    new = [NewPartitions(TOPIC, count)]
    admin.create_partitions(new)[TOPIC].result(TIMEOUT_S)
    reads(broker, count)
    assert broker.stop() in (0, 143)


def is_recovered_as_a_whole(partition):
    """Whether the recovery point is the start of the log, so that a start checks all segments."""
    return partition % 2 == 1


def fill(broker, states):
    """Gives each partition the files of one state, in a directory that was not stopped cleanly."""
    (broker.data / ".kafka_cleanshutdown").unlink()
    others = ("leader-epoch-checkpoint", "partition.metadata")
    others = {name: (directory(broker) / name).read_bytes() for name in others}
    for partition, state in enumerate(states):
        folder = directory(broker, partition)
        for name in files(folder):
            (folder / name).unlink()
        for name, content in (state | others).items():
            (folder / name).write_bytes(content)
    for name in (RECOVERY_POINTS, HIGH_WATERMARKS):
        known = checkpoint(broker.data / name)
        offset = known[f"{TOPIC}-0"]
        for at in range(len(states)):
            is_whole = name == RECOVERY_POINTS and is_recovered_as_a_whole(at)
            known[f"{TOPIC}-{at}"] = 0 if is_whole else offset
        rows = [f"{at.replace('-', ' ')} {offset}\n" for at, offset in known.items()]
        (broker.data / name).write_text(f"0\n{len(rows)}\n{''.join(rows)}")


def check_start(broker, states, before, after):
    """Checks what a start makes of each state. Returns its logs and the names of its files, and
    what consumers read."""
    broker.start()
    found = reads(broker, len(states))
    for state, isolations in zip(states, found):
        for records, former, cleaned in zip(isolations, before, after):
            assert set(former) >= set(records) >= set(cleaned), sorted(state)
        committed, _ = isolations
        assert last_values(committed) == last_values(before[0]), sorted(state)
    folders = [directory(broker, partition) for partition in range(len(states))]
    names = [names_in(folder) for folder in folders]
    left = {name for it in names for name in it if not name.endswith(KEPT)}
    assert not left, f"{broker.kind} leaves {left}"
    for partition in filter(is_recovered_as_a_whole, range(len(states))):
        # Apache Kafka writes a snapshot for each segment that it checks.
        names[partition] = {it for it in names[partition] if not it.endswith(".snapshot")}
    logs = [{log.name: log.read_bytes() for log in folder.glob("*.log")} for folder in folders]
    return list(zip(logs, names)), found


def last_values(records):
    return {key: (offset, value) for offset, key, value in records}


@pytest.mark.oracle
def test_either_broker_goes_on_after_a_kill(make):
    writer = make(SORDINI_KIND, "written", **NEVER).start()
    write(writer)
    (before,) = reads(writer, 1)
    assert writer.stop() in (0, 143)
    with ThreadPoolExecutor() as pool:
        pair = [make(kind, f"round-{kind}", writer, **ALWAYS) for kind in KINDS]
        (theirs, after), (ours, records) = pool.map(round_of, pair)
        assert records == after
        states = theirs + [state for state in ours if state not in theirs]
        add_partitions(writer, len(states))
        fill(writer, states)
        pair = [make(kind, f"opened-{kind}", writer, **NEVER) for kind in KINDS]
        start = lambda broker: check_start(broker, states, before, after)  # noqa: E731
        (expected, there), (found, here) = pool.map(start, pair)
    assert here == there, "consumers read the same from both"
    for state, those, these in zip(states, expected, found):
        assert these == those, f"Apache Kafka makes other files of {sorted(state)}"
    assert len({tuple(records) for _, records in here}) == 3, "none, one or both of the groups"
    _, sordini = pair
    set_configs(sordini, TOPIC, {"min.cleanable.dirty.ratio": "0"})
    wait_for_rounds(sordini, len(states))
    assert reads(sordini, len(states)) == [after] * len(states)
