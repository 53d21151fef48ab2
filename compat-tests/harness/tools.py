"""Runs Apache Kafka's command line tools by the names of their scripts."""

import itertools
import json
import queue
import subprocess
import threading
from dataclasses import dataclass

from .paths import CLASSPATH, FETCHED, JAVA

_TOOLS = "org.apache.kafka.tools"
CLASSES = {
    "kafka-acls": f"{_TOOLS}.AclCommand",
    "kafka-broker-api-versions": f"{_TOOLS}.BrokerApiVersionsCommand",
    "kafka-cluster": f"{_TOOLS}.ClusterTool",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": f"{_TOOLS}.consumer.ConsoleConsumer",
    "kafka-console-producer": f"{_TOOLS}.ConsoleProducer",
    "kafka-consumer-groups": f"{_TOOLS}.consumer.group.ConsumerGroupCommand",
    "kafka-consumer-perf-test": f"{_TOOLS}.ConsumerPerformance",
    "kafka-delegation-tokens": f"{_TOOLS}.DelegationTokenCommand",
    "kafka-delete-records": f"{_TOOLS}.DeleteRecordsCommand",
    "kafka-dump-log": f"{_TOOLS}.DumpLogSegments",
    "kafka-e2e-latency": f"{_TOOLS}.EndToEndLatency",
    "kafka-features": f"{_TOOLS}.FeatureCommand",
    "kafka-get-offsets": f"{_TOOLS}.GetOffsetShell",
    "kafka-groups": f"{_TOOLS}.GroupsCommand",
    "kafka-leader-election": f"{_TOOLS}.LeaderElectionCommand",
    "kafka-log-dirs": f"{_TOOLS}.LogDirsCommand",
    "kafka-metadata-quorum": f"{_TOOLS}.MetadataQuorumCommand",
    "kafka-producer-perf-test": f"{_TOOLS}.ProducerPerformance",
    "kafka-reassign-partitions": f"{_TOOLS}.reassign.ReassignPartitionsCommand",
    "kafka-storage": "kafka.tools.StorageTool",
    "kafka-topics": f"{_TOOLS}.TopicCommand",
    "kafka-transactions": f"{_TOOLS}.TransactionsCommand",
    "kafka-verifiable-consumer": f"{_TOOLS}.VerifiableConsumer",
    "kafka-verifiable-producer": f"{_TOOLS}.VerifiableProducer",
    # Part of these tests: files of these names in tools/.
    "re2-patterns": "sordini.compat.Re2Patterns",
    "repeated-reader": "sordini.compat.RepeatedReader",
    "transaction-pairs": "sordini.compat.TransactionPairs",
    "transaction-series": "sordini.compat.TransactionSeries",
}
# Tools without an address of a broker, and tools that take it after a sub-command.
WITHOUT_BOOTSTRAP = {"kafka-dump-log", "kafka-storage", "re2-patterns", "repeated-reader",
                     "transaction-pairs", "transaction-series"}  # fmt: skip
BOOTSTRAP_LAST = {"kafka-cluster"}
COMMAND_TIMEOUT_S = 60


@dataclass
class Result:
    """The exit code of a command (None while it runs) and its output."""

    command: str
    exit: int | None
    stdout: str
    stderr: str

    @property
    def lines(self):
        return self.stdout.splitlines()

    def ok(self):
        assert self.exit == 0, f"$ {self.command}\nexit {self.exit}\n{self.stdout}{self.stderr}"
        return self


def run_process(tool, args, stdin="", timeout=COMMAND_TIMEOUT_S):
    """Runs a tool as a separate process, as a user does."""
    done = subprocess.run(
        [*JAVA, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", CLASSPATH,
         CLASSES[tool], *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )  # fmt: skip
    return Result(f"{tool} {' '.join(args)}", done.returncode, done.stdout, done.stderr)


class ToolHost:
    """The JVM of tools/ToolHost.java. It starts at first use, and again after a command hung."""

    def __init__(self):
        self._ids = itertools.count(1)
        self._replies = {}
        self._process = None

    def _start(self):
        log = FETCHED / "tools.log"
        self._process = subprocess.Popen(
            [*JAVA, f"-Dorg.slf4j.simpleLogger.logFile={log}",
             "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
             "-Dorg.slf4j.simpleLogger.showDateTime=true",
             "-cp", CLASSPATH, "sordini.compat.ToolHost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process):
        for line in process.stdout:
            reply = json.loads(line)
            self._replies[reply["id"]].put(reply)
        # A tool ended the JVM itself. Its output is lost, and only the exit code is known.
        self._process = None if self._process is process else self._process
        ended = {"exit": process.wait(), "stdout": "", "stderr": "(it ended the JVM)"}
        for replies in list(self._replies.values()):
            replies.put(ended)

    def _send(self, op, **fields):
        if self._process is None:
            self._start()
        request_id = next(self._ids)
        self._replies[request_id] = queue.Queue()
        self._process.stdin.write(json.dumps({"op": op, "id": request_id, **fields}) + "\n")
        self._process.stdin.flush()
        return request_id

    def _await(self, request_id, timeout):
        return self._replies[request_id].get(timeout=timeout)

    def run(self, tool, args, stdin="", timeout=COMMAND_TIMEOUT_S):
        return self.start(tool, args, stdin).wait(timeout)

    def start(self, tool, args, stdin=""):
        """Starts a command without waiting."""
        request = {"class": CLASSES[tool], "args": args, "stdin": stdin}
        return Running(self, self._send("run", **request), f"{tool} {' '.join(args)}")

    def close(self):
        """Ends the JVM, and with it all running commands."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Running:
    """A running command."""

    def __init__(self, host, command_id, command):
        self._host = host
        self._id = command_id
        self.command = command

    def peek(self):
        """Returns its output so far."""
        return self._result(self._host._await(self._host._send("peek", of=self._id), 10))

    def wait(self, timeout=COMMAND_TIMEOUT_S):
        try:
            return self._result(self._host._await(self._id, timeout))
        except queue.Empty:
            so_far = self.peek()
            # A hanging command cannot be ended inside its JVM, so the next command gets a new one.
            self._host.close()
            raise AssertionError(
                f"$ {self.command}\nnot finished after {timeout} s; so far it printed:\n"
                f"{so_far.stdout}{so_far.stderr}"
            ) from None

    def stop(self, timeout=COMMAND_TIMEOUT_S):
        """Runs the command's shutdown hooks, as SIGTERM does. Returns its result."""
        self._host._send("stop", of=self._id)
        return self.wait(timeout)

    def _result(self, reply):
        return Result(self.command, reply["exit"], reply["stdout"], reply["stderr"])
