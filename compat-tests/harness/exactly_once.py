"""Finds violations of exactly-once processing in the history of a read-process-write run.

Workers read a source topic. For each record that they read, they write `PARTS` records to a sink
topic. The records and the offsets after the read records are one transaction. The history has what
the workers did, all records and markers of the sink topic, what consumers with `read_committed`
got, and the offsets that the group has committed in the end.
"""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

# Records that a worker writes for each record that it reads.
PARTS = 2

# What a worker knows about the end of a transaction. RUNNING: it called neither commit nor abort.
# COMMITTING: it called commit and got no response. An abort needs no response to be certain.
RUNNING, COMMITTING, COMMITTED, ABORTED = "running", "committing", "committed", "aborted"

LOST = "lost write"
ABORTED_READ = "aborted read"
TORN = "torn transaction"
DOUBLED = "doubled"
REORDERED = "reordered"
WRONG_END = "EndTxn of another transaction"
INVENTED = "invented"


@dataclass(frozen=True)
class Output:
    """One record that a worker writes. Its text is the value of the record."""

    transaction: str
    source: int
    offset: int
    part: int

    def __str__(self):
        return f"{self.transaction} {self.source} {self.offset} {self.part}"

    @staticmethod
    def parse(text):
        transaction, *numbers = text.split()
        return Output(transaction, *map(int, numbers))


@dataclass
class Transaction:
    """A transaction as its worker saw it: the outputs that it sent, by partition and in order."""

    name: str
    outcome: str = RUNNING
    sent: list = field(default_factory=list)


@dataclass(frozen=True)
class Data:
    """A record in the log of a sink partition."""

    offset: int
    producer: int
    value: str


@dataclass(frozen=True)
class Marker:
    """A commit or abort marker in the log of a sink partition."""

    offset: int
    producer: int
    is_commit: bool


@dataclass
class History:
    """Everything that the checker compares.

    `logs` has the `Data` and `Marker`s of each sink partition. `reads` has one
    {partition: [(offset, value)]} for each consumer with read_committed. The first consumer reads
    the whole topic after the run. The others may stop anywhere. `committed` has the offset of the
    group for each source partition.
    """

    transactions: dict
    logs: dict
    reads: list
    committed: dict


@dataclass(frozen=True)
class Problem:
    kind: str
    text: str

    def __str__(self):
        return f"{self.kind}: {self.text}"


def check(history):
    """Returns the problems of a history. An empty list means that it is exactly-once."""
    return list(_Check(history).problems())


class _Check:
    def __init__(self, history):
        self.history = history
        # By partition: the committed records, and the offset of the marker that ends each record.
        self.visible = defaultdict(list)
        self.ends = defaultdict(dict)
        self.is_commit = {}
        # By transaction: its records in the log, with their partitions.
        self.in_log = defaultdict(list)
        for partition, log in history.logs.items():
            self._match_markers(partition, log)

    def _match_markers(self, partition, log):
        open_records = defaultdict(list)
        for entry in log:
            if isinstance(entry, Data):
                open_records[entry.producer].append(entry)
                self.in_log[_transaction_of(entry.value)].append((partition, entry))
                continue
            self.is_commit[partition, entry.offset] = entry.is_commit
            for record in open_records.pop(entry.producer, []):
                self.ends[partition][record.offset] = entry.offset
                if entry.is_commit:
                    self.visible[partition].append(record)
        self.visible[partition].sort(key=lambda record: record.offset)

    def problems(self):
        yield from self._invented()
        for transaction in self.history.transactions.values():
            yield from self._of_transaction(transaction)
        yield from self._of_inputs()
        yield from self._order()
        for number, read in enumerate(self.history.reads):
            yield from self._of_reader(number, read)

    def _invented(self):
        sent = {
            (partition, str(output))
            for transaction in self.history.transactions.values()
            for partition, output in transaction.sent
        }
        for partition, log in self.history.logs.items():
            for entry in log:
                if isinstance(entry, Data) and (partition, entry.value) not in sent:
                    yield Problem(INVENTED, f"{entry.value!r} at {partition}-{entry.offset}")

    def _of_transaction(self, transaction):
        """Compares the markers behind the records of a transaction with what its worker did."""
        markers, in_log = defaultdict(set), set()
        for partition, entry in self.in_log[transaction.name]:
            in_log.add((partition, entry.value))
            markers[partition].add(self.ends[partition].get(entry.offset))
        name = transaction.name
        split = [partition for partition, ends in markers.items() if len(ends) > 1]
        if split:
            yield Problem(WRONG_END, f"a marker is between the records of {name} in {split}")
        kinds = {
            self.is_commit.get((partition, end))
            for partition, ends in markers.items()
            for end in ends
        }
        if True in kinds and kinds != {True}:
            yield Problem(TORN, f"only some records of {name} are committed")
        missing = [it for it in transaction.sent if (it[0], str(it[1])) not in in_log]
        if True in kinds and missing:
            yield Problem(TORN, f"{name} is committed without {missing[0][1]}")
        if True in kinds and transaction.outcome == RUNNING:
            yield Problem(WRONG_END, f"{name} is committed, and its worker did not commit it")
        if True in kinds and transaction.outcome == ABORTED:
            yield Problem(ABORTED_READ, f"{name} is committed, and its worker aborted it")
        if transaction.outcome == COMMITTED and transaction.sent and True not in kinds:
            yield Problem(LOST, f"{name} was committed, and none of its records is")

    def _of_inputs(self):
        """Each source record below the committed offset has its outputs once, and no other has."""
        counts = Counter()
        for records in self.visible.values():
            for record in records:
                output = Output.parse(record.value)
                counts[output.source, output.offset, output.part] += 1
        for (source, offset, part), count in sorted(counts.items()):
            if count > 1:
                yield Problem(DOUBLED, f"source {source}-{offset}, part {part}: {count} times")
            if offset >= self.history.committed.get(source, 0):
                yield Problem(TORN, f"source {source}-{offset} has output without its offset")
        for source, end in self.history.committed.items():
            wanted = itertools.product(range(end), range(PARTS))
            lost = [it for it in wanted if not counts[source, *it]]
            if lost:
                yield Problem(LOST, f"source {source}: {len(lost)} outputs, first {lost[0]}")

    def _order(self):
        """The outputs of a source partition have its order in each sink partition."""
        for partition, records in self.visible.items():
            last = {}
            for record in records:
                output = Output.parse(record.value)
                place = output.offset, output.part
                if place < last.get(output.source, (-1, -1)):
                    text = f"{record.value!r} in {partition} follows {last[output.source]}"
                    yield Problem(REORDERED, text)
                last[output.source] = place

    def _of_reader(self, number, read):
        """A reader gets the committed records in the order of the log, each once, without gaps."""
        for partition in self.history.logs:
            got = read.get(partition, [])
            offsets = [offset for offset, _ in got]
            if len(set(offsets)) < len(offsets):
                yield Problem(DOUBLED, f"reader {number} got an offset of {partition} twice")
            if offsets != sorted(offsets):
                yield Problem(REORDERED, f"reader {number} went back in {partition}")
            expected = [(it.offset, it.value) for it in self.visible[partition]]
            wrong = sorted(set(got) - set(expected))
            if wrong:
                yield Problem(ABORTED_READ, f"reader {number} got {wrong[0]} of {partition}")
            end = max(offsets, default=-1) if number else float("inf")
            missed = sorted(it for it in set(expected) - set(got) if it[0] <= end)
            if missed:
                yield Problem(LOST, f"reader {number} did not get {missed[0]} of {partition}")


def _transaction_of(value):
    return value.split(" ", 1)[0]
