"""Unit tests of harness/exactly_once.py and journal.py: each kind of planted problem is found.

The fixture is a good history of two workers. Each test changes it in one way.
"""

import pytest
from harness import exactly_once
from harness.exactly_once import (
    ABORTED,
    ABORTED_READ,
    COMMITTED,
    COMMITTING,
    DOUBLED,
    INVENTED,
    LOST,
    PARTS,
    REORDERED,
    RUNNING,
    TORN,
    WRONG_END,
    Data,
    History,
    Marker,
    Output,
    Transaction,
)
from harness.journal import Journal

PARTITIONS = 2


class Run:
    """Builds a history as a correct cluster would: workers send, and markers end transactions."""

    def __init__(self):
        self.transactions = {}
        self.logs = {partition: [] for partition in range(PARTITIONS)}
        self.committed = {}

    def send(self, name, source, *offsets, producer=1):
        """Sends the outputs of source records. One part is in each sink partition."""
        transaction = self.transactions.setdefault(name, Transaction(name))
        for offset in offsets:
            for part in range(PARTS):
                partition = (source + part) % PARTITIONS
                output = Output(name, source, offset, part)
                transaction.sent.append((partition, output))
                self.append(partition, producer, str(output))

    def append(self, partition, producer, value):
        log = self.logs[partition]
        log.append(Data(len(log), producer, value))

    def mark(self, is_commit, producer=1, partitions=range(PARTITIONS)):
        for partition in partitions:
            log = self.logs[partition]
            log.append(Marker(len(log), producer, is_commit))

    def end(self, name, outcome, offsets, producer=1):
        """Ends a transaction as its worker wanted, with the group's offsets if it commits."""
        self.transactions[name].outcome = outcome
        is_commit = outcome in (COMMITTED, COMMITTING)
        self.mark(is_commit, producer)
        if is_commit:
            self.committed.update(offsets)

    def history(self):
        read = {}
        for partition, log in self.logs.items():
            is_commit = {}
            # From the end to the start: the next marker of each producer ends its records.
            read[partition] = []
            for entry in reversed(log):
                if isinstance(entry, Marker):
                    is_commit[entry.producer] = entry.is_commit
                elif is_commit.get(entry.producer):
                    read[partition].insert(0, (entry.offset, entry.value))
        early = {partition: got[:1] for partition, got in read.items()}
        return History(self.transactions, self.logs, [read, early], self.committed)


@pytest.fixture
def run():
    run = Run()
    run.send("a.1", 0, 0, 1)
    run.send("b.1", 1, 0, producer=2)
    run.end("a.1", COMMITTED, {0: 2})
    run.end("b.1", COMMITTING, {1: 1}, producer=2)
    run.send("a.2", 0, 2)
    run.end("a.2", ABORTED, {})
    run.send("a.3", 0, 2)
    run.end("a.3", COMMITTED, {0: 3})
    run.send("b.2", 1, 1, producer=2)
    run.mark(False, producer=2)
    run.send("b.3", 1, 1, 2, producer=2)
    run.end("b.3", COMMITTED, {1: 3}, producer=2)
    return run


def kinds(run_or_history):
    history = run_or_history.history() if isinstance(run_or_history, Run) else run_or_history
    return {problem.kind for problem in exactly_once.check(history)}


def test_good_history_passes(run):
    assert exactly_once.check(run.history()) == []


def test_empty_history_passes():
    assert exactly_once.check(Run().history()) == []


def test_commit_without_response_may_be_aborted(run):
    run.send("a.4", 0, 3)
    run.transactions["a.4"].outcome = COMMITTING
    run.mark(False)
    assert kinds(run) == set()


def test_lost_transaction_is_found(run):
    """The worker got a response to its commit, and the records were aborted later."""
    run.send("a.4", 0, 3)
    run.mark(False)
    run.transactions["a.4"].outcome = COMMITTED
    run.committed[0] = 4
    assert kinds(run) == {LOST}


def test_committed_transaction_without_any_record_is_found(run):
    run.transactions["a.4"] = Transaction("a.4", COMMITTED, [(0, Output("a.4", 0, 3, 0))])
    assert kinds(run) == {LOST}


def test_offset_without_output_is_found(run):
    run.committed[0] = 4
    assert kinds(run) == {LOST}


def test_output_without_offset_is_found(run):
    """The records are committed and the offsets of the same transaction are not."""
    run.committed[0] = 2
    assert kinds(run) == {TORN}


def test_missing_record_of_a_committed_transaction_is_found(run):
    log = run.logs[0]
    log.remove(next(it for it in log if isinstance(it, Data) and it.value.startswith("a.3 ")))
    assert kinds(run) == {TORN, LOST}


def test_abort_in_one_partition_is_found(run):
    """One partition got the commit marker and the other one an abort marker."""
    run.send("a.4", 0, 3)
    run.mark(True, partitions=[0])
    run.mark(False, partitions=[1])
    run.transactions["a.4"].outcome = COMMITTED
    run.committed[0] = 4
    assert kinds(run) == {TORN, LOST}


def test_missing_marker_is_found(run):
    run.send("a.4", 0, 3)
    run.mark(True, partitions=[0])
    run.transactions["a.4"].outcome = COMMITTED
    run.committed[0] = 4
    assert kinds(run) == {TORN, LOST}


def test_commit_of_an_aborted_transaction_is_found(run):
    run.send("a.4", 0, 3)
    run.end("a.4", COMMITTED, {0: 4})
    run.transactions["a.4"].outcome = ABORTED
    assert kinds(run) == {ABORTED_READ}


@pytest.mark.parametrize("is_commit", [True, False])
def test_read_before_the_end_is_found(run, is_commit):
    """A reader got records of an open transaction: the last stable offset was too high."""
    run.send("a.4", 0, 3)
    if not is_commit:
        run.mark(False)
        run.transactions["a.4"].outcome = ABORTED
    history = run.history()
    data = next(it for it in run.logs[1] if isinstance(it, Data) and it.value.startswith("a.4 "))
    last = history.reads[1][1]
    history.reads[1][1] = [*history.reads[0][1], (data.offset, data.value)]
    assert last and kinds(history) == {ABORTED_READ}


def test_read_of_an_aborted_transaction_is_found(run):
    """A reader got records that the list of aborted transactions should have removed."""
    history = run.history()
    aborted = next(it for it in run.logs[0] if isinstance(it, Data) and it.value.startswith("a.2 "))
    history.reads[0][0] = sorted([*history.reads[0][0], (aborted.offset, aborted.value)])
    assert kinds(history) == {ABORTED_READ}


@pytest.mark.parametrize("reader", [0, 1])
def test_skipped_record_is_found(run, reader):
    history = run.history()
    history.reads[reader][0] = history.reads[0][0][1:]
    assert kinds(history) == {LOST}


def test_record_read_twice_is_found(run):
    history = run.history()
    history.reads[1][0] = history.reads[0][0][:1] * 2
    assert kinds(history) == {DOUBLED}


def test_reader_that_goes_back_is_found(run):
    history = run.history()
    history.reads[0][0] = history.reads[0][0][::-1]
    assert kinds(history) == {REORDERED}


def test_input_processed_twice_is_found(run):
    """A worker that was replaced committed the same source record again."""
    run.send("c.1", 0, 2, producer=3)
    run.end("c.1", COMMITTED, {0: 3}, producer=3)
    assert kinds(run) == {DOUBLED}


def test_batch_appended_twice_is_found(run):
    """A retry of the producer was appended again."""
    run.send("a.4", 0, 3)
    repeated = next(it for it in run.logs[0] if isinstance(it, Data) and "a.4" in it.value)
    run.append(0, 1, repeated.value)
    run.end("a.4", COMMITTED, {0: 4})
    assert kinds(run) == {DOUBLED}


def test_inputs_in_another_order_are_found(run):
    run.send("a.4", 0, 4)
    run.end("a.4", COMMITTED, {})
    run.send("a.5", 0, 3)
    run.end("a.5", COMMITTED, {0: 5})
    assert kinds(run) == {REORDERED}


def test_delayed_end_that_hits_the_next_transaction_is_found(run):
    """The commit of a.4 is delayed. It arrives again in the middle of a.5 and ends that one."""
    run.send("a.4", 0, 3)
    run.end("a.4", COMMITTED, {0: 4})
    run.send("a.5", 0, 4)
    run.mark(True)
    run.send("a.5", 0, 5)
    run.end("a.5", ABORTED, {})
    run.committed[0] = 4
    assert kinds(run) == {WRONG_END, TORN, ABORTED_READ}


def test_end_in_the_middle_of_a_committed_transaction_is_found(run):
    """Both parts of the transaction are committed, so only the place of the marker shows it."""
    run.send("a.4", 0, 3)
    run.mark(True)
    run.send("a.4", 0, 4)
    run.end("a.4", COMMITTED, {0: 5})
    assert kinds(run) == {WRONG_END}


def test_commit_that_no_worker_asked_for_is_found(run):
    """The worker was killed in a transaction, and a commit ended it."""
    run.send("a.4", 0, 3)
    run.end("a.4", COMMITTED, {0: 4})
    run.transactions["a.4"].outcome = RUNNING
    assert kinds(run) == {WRONG_END}


def test_invented_record_is_found(run):
    run.append(0, 1, "a.9 0 7 0")
    assert INVENTED in kinds(run)


def test_journal_is_read_while_it_is_written(tmp_path):
    path = tmp_path / "worker.journal"
    journal = Journal(path)
    path.write_text('{"assigned": [0]}\n{"begin": "w.1.1"}\n{"send": "w.1.1 0 5 1", "parti')
    assert journal.read().transactions == {"w.1.1": Transaction("w.1.1")}
    with path.open("a") as more:
        more.write('tion": 1}\n{"outcome": "committed"}\n{"error": "timed out"}\n')
    sent = [(1, Output("w.1.1", 0, 5, 1))]
    assert journal.read().transactions == {"w.1.1": Transaction("w.1.1", COMMITTED, sent)}
    assert (journal.committed, journal.assignments, journal.errors) == (1, 1, ["timed out"])
