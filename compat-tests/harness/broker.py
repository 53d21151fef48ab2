"""Starts, stops and kills a broker: Sordini, or Apache Kafka with the same settings."""

import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from .paths import CLASSPATH, LOG4J, SORDINI

SORDINI_KIND = "sordini"
KAFKA_KIND = "apache-kafka"
# Settings with which members of the consumer protocol soon have their partitions.
FAST_HEARTBEATS = {
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
    "group.consumer.assignment.interval.ms": "100",
}
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 60

_next_port = int(os.environ.get("COMPAT_FIRST_PORT", "0"))


def free_port():
    """Returns a free port: the next one from COMPAT_FIRST_PORT on, or any if that is not set."""
    global _next_port
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", _next_port))
            except OSError:
                _next_port += 1
                continue
            port = probe.getsockname()[1]
            _next_port += 1 if _next_port else 0
            return port


class Broker:
    """A broker with its directory, port and settings. It may be started many times."""

    # Of Apache Kafka.
    jvm = ["java", "-Xms512M", "-Xmx512M", "-XX:+UseSerialGC"]

    def __init__(self, kind, directory, **settings):
        self.kind = kind
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.data = self.dir / "data"
        self.port = free_port()
        self.controller_port = free_port()
        self.http_port = free_port()
        # `{dir}` in a value stands for this broker's directory.
        self.settings = {
            key.replace("_", "."): str(value).replace("{dir}", str(self.dir))
            for key, value in settings.items()
        }
        self.process = None

    @property
    def address(self):
        return "127.0.0.1", self.port

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def properties(self):
        """The server.properties, the same for both kinds of broker."""
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},"
            f"CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **self.settings,
        }

    def start(self):
        config = self.dir / "server.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in self.properties().items()))
        log = open(self.dir / "broker.log", "ab")
        self.process = subprocess.Popen(
            self._command(config),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "info")},
        )
        log.close()
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def _command(self, config):
        if self.kind == SORDINI_KIND:
            http = f"http.listener=127.0.0.1:{self.http_port}"
            return [SORDINI, "serve", config, "--override", http]
        java = [*self.jvm, "-cp", CLASSPATH]
        if not (self.data / "meta.properties").exists():
            storage = [*java, "kafka.tools.StorageTool"]
            cluster_id = "4L6g3nShT-eMCtK--X86sw"
            subprocess.run(
                [*storage, "format", "-t", cluster_id, "-c", config], check=True, capture_output=True
            )
        return [java[0], f"-Dlog4j2.configurationFile={LOG4J}", *java[1:], "kafka.Kafka", config]

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended at start:\n{self.log_tail()}")
            if self._answers_metadata():
                return
            time.sleep(0.05 if self.kind == SORDINI_KIND else 0.3)
        raise RuntimeError(f"{self.kind} is not ready after {START_TIMEOUT_S} s:\n{self.log_tail()}")

    def _answers_metadata(self):
        """Whether a Metadata request (version 0, no topics) names at least one broker."""
        body = struct.pack(">hhihi", 3, 0, 7, -1, 0)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(struct.pack(">i", len(body)) + body)
                reply = connection.recv(12, socket.MSG_WAITALL)
        except OSError:
            return False
        return len(reply) == 12 and struct.unpack(">iii", reply)[2] > 0

    def stop(self):
        """Sends SIGTERM. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self):
        """Sends SIGKILL, as in a crash of the process. Returns the exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, how):
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def log_tail(self, lines=30):
        return "\n".join((self.dir / "broker.log").read_text(errors="replace").splitlines()[-lines:])
