"""kafka-transactions, kafka-features and the console consumer with transactions, and kafka-dump-log
of what transactions write."""

import pytest
from differential.records import batch
from differential.wire import Connection
from harness.broker import Broker
from harness.shell import Shell
from harness.transactions import DEADLINE_S, leave_open, transactional

LOG = "00000000000000000000.log"
TRANSACTIONAL = 0x10
# Columns of tables that differ between runs.
_VARYING = ("ProducerId", "LastTimestamp", "CurrentTransactionStartTimeMs", "TransactionDurationMs",
            "Duration(min)")  # fmt: skip


def table(shell, line):
    """Adds a table that a tool prints to the transcript, without the columns that vary."""
    result = shell(line, transcript=False).ok()
    header, *rows = ([cell.strip() for cell in row.strip().split("\t")] for row in result.lines)
    shown = [
        " | ".join("*" if name in _VARYING else cell for name, cell in zip(header, row))
        for row in rows
    ]
    shell.note(line, [" | ".join(header), *sorted(shown)])
    return [dict(zip(header, row)) for row in rows]


def write(producer, topic, *values):
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(DEADLINE_S) == 0


def test_list_and_describe(shell):
    shell("kafka-topics --create --topic txn-list")
    done = transactional(shell.broker.bootstrap, "txn-list-done")
    write(done, "txn-list", "a")
    done.commit_transaction(DEADLINE_S)
    open_ = leave_open(shell.broker.bootstrap, "txn-list")
    mine = "--transactional-id-pattern txn-list-.*"
    table(shell, f"kafka-transactions list {mine}")
    table(shell, f"kafka-transactions list {mine} --duration-filter 3600000")
    table(shell, f"kafka-transactions list {mine} --duration-filter -1")
    table(shell, "kafka-transactions list --transactional-id-pattern txn-list-op.*")
    shell("kafka-transactions list --transactional-id-pattern (")
    for name in ("txn-list-done", "txn-list-open"):
        table(shell, f"kafka-transactions describe --transactional-id {name}")
    shell("kafka-transactions describe --transactional-id txn-list-unknown")
    table(shell, "kafka-transactions describe-producers --topic txn-list --partition 0")
    open_.abort_transaction(DEADLINE_S)
    table(shell, f"kafka-transactions list {mine}")


def test_force_terminate(shell):
    """The transaction is aborted, and its producer is fenced."""
    shell("kafka-topics --create --topic txn-forced")
    producer = leave_open(shell.broker.bootstrap, "txn-forced")
    terminate = "kafka-transactions forceTerminateTransaction --transactionalId"
    shell(f"{terminate} txn-forced-open")
    shell(f"{terminate} txn-forced-unknown")
    mine = "--transactional-id-pattern txn-forced.*"
    table(shell, f"kafka-transactions list {mine}")
    with pytest.raises(Exception) as refused:
        producer.commit_transaction(DEADLINE_S)
    assert refused.value.args[0].fatal()


def test_read_committed_on_the_console(shell):
    shell("kafka-topics --create --topic txn-console")
    producer = transactional(shell.broker.bootstrap, "txn-console-id")
    for number in range(4):
        write(producer, "txn-console", f"{number}-a", f"{number}-b")
        end = producer.abort_transaction if number % 2 else producer.commit_transaction
        end(DEADLINE_S)
    write(producer, "txn-console", "open")
    consumer = "kafka-console-consumer --topic txn-console --from-beginning --timeout-ms 5000"
    shell(f"{consumer} --isolation-level read_committed --max-messages 4")
    shell(f"{consumer} --isolation-level read_uncommitted --max-messages 9")
    shell("kafka-get-offsets --topic txn-console")
    producer.abort_transaction(DEADLINE_S)


@pytest.fixture
def hanging(shell):
    """A topic with a transaction that no coordinator has. A check of each first batch prevents
    that, so the check is off for this batch. Its timestamp is of 2020."""
    topic = "txn-hanging"
    shell(f"kafka-topics --create --topic {topic}", transcript=False).ok()
    key = "transaction.partition.verification.enable"
    configs = "kafka-configs --alter --entity-type brokers --entity-default"
    shell(f"{configs} --add-config {key}=false", transcript=False).ok()
    records = batch([b"a"], attributes=TRANSACTIONAL, producer_id=990_000_000, producer_epoch=3,
                    sequence=0)  # fmt: skip
    data = [{"index": 0, "records": records}]
    body = {"transactionalId": f"{topic}-id", "acks": -1, "timeoutMs": 5000,
            "topicData": [{"name": topic, "partitionData": data}]}  # fmt: skip
    connection = Connection(shell.broker.port)
    try:
        answer = connection.request("Produce", 11, body)
    finally:
        connection.close()
        shell(f"{configs} --delete-config {key}", transcript=False).ok()
    result = answer["responses"][0]["partitionResponses"][0]
    assert result["errorCode"] == 0, result
    return topic


def test_hanging_transactions(shell, hanging):
    table(shell, f"kafka-transactions find-hanging --topic {hanging}")
    table(shell, f"kafka-transactions find-hanging --topic {hanging} --partition 0")
    table(shell, f"kafka-transactions find-hanging --topic {hanging} --broker-id 1")
    table(shell, f"kafka-transactions describe-producers --topic {hanging} --partition 0")
    abort = f"kafka-transactions abort --topic {hanging} --partition 0"
    shell(f"{abort} --start-offset 7")
    shell(f"{abort} --start-offset 0")
    shell(f"{abort} --start-offset 0")
    table(shell, f"kafka-transactions find-hanging --topic {hanging}")
    shell(f"kafka-get-offsets --topic {hanging}")


@pytest.fixture(scope="module", params=[0, 1, 2], ids=["version 0", "version 1", "version 2"])
def written(request, kind, tool_host, tmp_path_factory):
    """The directory of a stopped broker that had transactions of this `transaction.version`."""
    settings = {"transaction_state_log_num_partitions": "1"}
    broker = Broker(kind, tmp_path_factory.mktemp("written"), **settings).start()
    run = Shell(broker, tool_host, None, record=False)
    if request.param < 2:
        run(f"kafka-features downgrade --feature transaction.version={request.param}").ok()
    run("kafka-topics --create --topic dumped").ok()
    run(f"transaction-series {broker.bootstrap} dumped dumped-id caac").ok()
    # The last markers are written after the response to the producer.
    run("kafka-transactions describe --transactional-id dumped-id",
        until=lambda out: "CompleteCommit" in out).ok()  # fmt: skip
    broker.stop()
    return broker


def test_dump_of_the_coordinator(dump, shell):
    """The records of __transaction_state. Sordini may write two of them in one batch."""
    log = f"__transaction_state-0/{LOG}"
    dumped = dump(log, "--transaction-log-decoder", transcript=False).ok()
    records = [line for line in dumped.lines if line.startswith("| offset:")]
    shell.note(f"records of {log}", records)
    batches = [line for line in dumped.lines if line.startswith("baseOffset:")]
    assert batches and all("baseSequence: -1 " in line for line in batches), batches


def test_dump_of_batches_and_markers(dump):
    dump(f"dumped-0/{LOG}", "--print-data-log")


def test_dump_of_the_index_of_aborted_transactions(dump):
    dump("dumped-0/00000000000000000000.txnindex")


def test_dump_of_producers(dump, written):
    (snapshot,) = (written.data / "dumped-0").glob("*.snapshot")
    dump(snapshot.relative_to(written.data))
