"""Clusters of several nodes: of Sordini, or of Apache Kafka with the same properties files.

Each node is a process with its own properties file, directory and log file. Faults use the
operating system: signals, network namespaces with cut links, full file systems.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient

from . import wire
from .broker import KAFKA_KIND, SORDINI_KIND, free_port
from .paths import CLASSPATH, SORDINI
from .programs import die_with_the_tests

START_TIMEOUT_S = {SORDINI_KIND: 30, KAFKA_KIND: 180}
STOP_TIMEOUT_S = 90
ADMIN_TIMEOUT_S = 60
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
JVM = ["java", "-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
BOTH_ROLES = "broker,controller"


class Node:
    """A node of a cluster. It may be started many times."""

    def __init__(self, cluster, node_id, roles, kind, settings):
        self.cluster, self.id, self.roles, self.settings = cluster, node_id, roles, settings
        self.kind = kind
        self.dir = cluster.dir / f"node-{node_id}"
        self.data = self.dir / "data"
        self.data.mkdir(parents=True)
        network = cluster.network
        self.host = network.address(node_id) if network else "127.0.0.1"
        self.port = 9092 if network else free_port()
        self.controller_port = 9093 if network else free_port()
        self.process = None
        self.is_paused = False
        # Sordini needs a format step only if the voters are not in the properties file.
        self.needs_format = kind == KAFKA_KIND or cluster.is_dynamic

    @property
    def address(self):
        return self.host, self.port

    @property
    def bootstrap(self):
        return f"{self.host}:{self.port}"

    @property
    def controller(self):
        return f"{self.host}:{self.controller_port}"

    @property
    def config(self):
        """The path of `server.properties`, `server-1.properties` and so on, as in the tutorial."""
        number = self.id - 1
        return self.cluster.dir / (f"server-{number}.properties" if number else "server.properties")

    @property
    def log(self):
        return self.dir / "broker.log"

    def properties(self):
        own = {"process.roles": self.roles, "node.id": str(self.id), "log.dirs": str(self.data)}
        listeners = [f"PLAINTEXT://{self.bootstrap}"] if "broker" in self.roles else []
        if "controller" in self.roles:
            listeners.append(f"CONTROLLER://{self.controller}")
        own["listeners"] = own["advertised.listeners"] = ",".join(listeners)
        own["controller.listener.names"] = "CONTROLLER"
        return {**own, **self.cluster.properties(), **self.settings}

    def start(self):
        """Starts the process. Does not wait until it is ready."""
        assert self.process is None, f"node {self.id} runs already"
        self.write_config()
        if self.needs_format:
            self.format()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "info")},
                start_new_session=True,
                preexec_fn=die_with_the_tests,
            )
        return self

    def write_config(self):
        settings = self.properties().items()
        lines = (f"{key}={value}\n" for key, value in settings if value is not None)
        self.config.write_text("".join(lines))

    def _command(self):
        if self.kind == SORDINI_KIND:
            command = [SORDINI, "serve", self.config, "--override", "http.listener=none"]
        else:
            command = [*self.cluster.jvm, "-cp", CLASSPATH, "kafka.Kafka", self.config]
        network = self.cluster.network
        return network.inside(self.id, command) if network else command

    def format(self):
        """Formats the directory with kafka-storage, once."""
        if (self.data / "meta.properties").exists():
            return
        how = self.cluster.format_options(self)
        command = [*JVM, "-cp", CLASSPATH, "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, "-t", CLUSTER_ID, "-c", self.config, *how], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def send(self, what):
        self.process.send_signal(what)

    def kill(self):
        """Sends SIGKILL, as in a crash of the process."""
        self._end(signal.SIGKILL)

    def stop(self):
        """Sends SIGTERM. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how):
        if self.process is None:
            return None
        process, self.process, self.is_paused = self.process, None, False
        process.send_signal(how)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"node {self.id} did not stop:\n{self.log_tail()}") from None

    def pause(self):
        self.is_paused = True
        self.send(signal.SIGSTOP)

    def resume(self):
        self.is_paused = False
        self.send(signal.SIGCONT)

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def answers(self):
        return self.is_running and not self.is_paused

    def metadata(self, topics=None):
        """Returns the metadata of this node, or None if it does not respond."""
        try:
            return wire.metadata(self.address, topics)
        except OSError:
            return None

    def cpu(self):
        """Returns the CPU seconds of the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def log_tail(self, lines=25):
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    """A cluster of nodes 1 to `count`, each broker and controller. More nodes can be added.

    The nodes are in `controller.quorum.voters`. If the quorum is dynamic, node 1 starts alone and
    the others find it by `controller.quorum.bootstrap.servers`.
    """

    def __init__(self, kind, directory, count=3, network=None, is_dynamic=False, **settings):
        self.kind, self.dir, self.network = kind, Path(directory), network
        self.dir.mkdir(parents=True, exist_ok=True)
        self.is_dynamic = is_dynamic
        self.jvm = JVM
        self.settings = {key.replace("_", "."): value for key, value in settings.items()}
        self.nodes = {}
        for node_id in range(1, count + 1):
            self.add_node(node_id)
        self.first_voters = list(self.nodes.values())

    def add_node(self, node_id, roles=BOTH_ROLES, kind=None, **settings):
        """Adds a node of the cluster's kind or of another. Does not start it."""
        own = {key.replace("_", "."): value for key, value in settings.items()}
        self.nodes[node_id] = Node(self, node_id, roles, kind or self.kind, own)
        return self.nodes[node_id]

    def properties(self):
        if self.is_dynamic:
            controllers = (node for node in self.nodes.values() if "controller" in node.roles)
            known = ",".join(node.controller for node in controllers)
            quorum = {"controller.quorum.bootstrap.servers": known}
        else:
            voters = ",".join(f"{node.id}@{node.controller}" for node in self.first_voters)
            quorum = {"controller.quorum.voters": voters}
        return {
            **quorum,
            "offsets.topic.num.partitions": "6",
            "group.initial.rebalance.delay.ms": "0",
            **self.settings,
        }

    def format_options(self, node):
        if node in self.first_voters and not self.is_dynamic or node.roles == "broker":
            return []
        return ["--standalone"] if node.id == 1 else ["--no-initial-controllers"]

    @property
    def bootstrap(self):
        return ",".join(node.bootstrap for node in self.nodes.values() if "broker" in node.roles)

    def start(self, *ids):
        """Starts these nodes, or all, and waits until all running nodes know each other."""
        for node in self._some(ids):
            node.start()
        try:
            self.wait_until_registered()
        except BaseException:
            if not ids:
                self.close()
            raise
        return self

    def _some(self, ids):
        return [self.nodes[node_id] for node_id in ids] if ids else list(self.nodes.values())

    def __getitem__(self, node_id):
        return self.nodes[node_id]

    def running(self):
        return [node for node in self.nodes.values() if node.answers and "broker" in node.roles]

    def wait_until(self, what, holds, timeout=None):
        """Polls until `holds()`. A timeout reports `what` and the nodes' logs."""
        start = time.monotonic()
        limit = timeout or START_TIMEOUT_S[self.kind]
        while not (result := holds()):
            for node in self.nodes.values():
                if node.process is not None and node.process.poll() is not None:
                    code = node.process.poll()
                    raise AssertionError(f"node {node.id} ended ({code}):\n{node.log_tail()}")
            if time.monotonic() - start > limit:
                logs = "\n".join(f"-- node {n.id}\n{n.log_tail(8)}" for n in self.nodes.values())
                raise AssertionError(f"{what}: not after {limit} s\n{logs}")
            time.sleep(0.02 if self.kind == SORDINI_KIND else 0.1)
        return result

    def wait_until_registered(self):
        """Waits until the metadata of every running node has exactly the running nodes."""
        expected = {node.id for node in self.running()}

        def known():
            seen = [node.metadata([]) for node in self.running()]
            return all(m is not None and m.brokers == expected for m in seen)

        self.wait_until(f"all know of brokers {sorted(expected)}", known)

    def wait_until_in_sync(self, timeout=None):
        """Waits until every replica on a running node is in sync."""
        running = {node.id for node in self.running()}

        def in_sync():
            seen = self.metadata()
            return seen is not None and all(
                p.leader in running and set(p.isr) >= set(p.replicas) & running
                for partitions in seen.topics.values()
                for p in partitions.values()
            )

        self.wait_until("all replicas are in sync", in_sync, timeout)

    def elect_preferred(self):
        """Elects the preferred leaders of all partitions, and waits until all running nodes know
        them."""
        running = {node.id for node in self.running()}
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.elect_leaders(ElectionType.PREFERRED).result(ADMIN_TIMEOUT_S)

        def is_led():
            seen = [node.metadata() for node in self.running()]
            return all(it is not None for it in seen) and all(
                p.leader == p.replicas[0] or p.replicas[0] not in running
                for it in seen
                for partitions in it.topics.values()
                for p in partitions.values()
            )

        self.wait_until("the preferred replicas lead", is_led)

    def metadata(self, topics=None):
        """Returns the metadata of the first node that responds."""
        for node in self.running():
            seen = node.metadata(topics)
            if seen is not None:
                return seen
        return None

    def partition(self, topic, index=0):
        seen = self.metadata([topic])
        return seen.topics[topic][index] if seen and index in seen.topics.get(topic, {}) else None

    def leader(self, topic, index=0):
        """Waits for a running leader of the partition. Returns its id."""

        def led():
            partition = self.partition(topic, index)
            return partition and partition.leader in self.nodes and partition.leader

        return self.wait_until(f"{topic}-{index} has a leader", led)

    def controller_of(self, node_id):
        """Returns the quorum leader that one node knows, or None."""
        try:
            leader = wire.quorum_leader(self.nodes[node_id].address)
        except OSError:
            return None
        return leader and leader[0]

    def controller_epoch(self):
        """Waits for a running leader of the quorum. Returns its id and epoch."""

        def known():
            for node in self.running():
                try:
                    leader = wire.quorum_leader(node.address)
                except OSError:
                    continue
                if leader is not None and self.nodes[leader[0]].answers:
                    return leader
            return None

        return self.wait_until("the quorum has a leader", known)

    def controller(self):
        return self.controller_epoch()[0]

    def kill(self, *ids):
        for node_id in ids:
            self.nodes[node_id].kill()

    def restart(self, node_id):
        """Stops a node with a controlled shutdown, starts it, and waits for its replicas."""
        node = self.nodes[node_id]
        code = node.stop()
        assert code in (0, 143), f"node {node_id} stopped with {code}:\n{node.log_tail()}"
        self.start(node_id)
        self.wait_until_in_sync()

    def make_whole(self):
        """Starts, resumes and reconnects all nodes, and waits until all replicas are in sync."""
        if self.network:
            self.network.heal()
        for node in self.nodes.values():
            if node.is_paused:
                node.resume()
        for node in self.nodes.values():
            if not node.is_running:
                node.process = None
                node.start()
        self.wait_until_registered()
        self.wait_until_in_sync()

    def forget(self, node_id):
        """Kills a node and removes it from this cluster object."""
        node = self.nodes.pop(node_id)
        node.kill()

    def logs(self, lines=100):
        """Returns the last lines of each node's log with a title, for the report of a failure."""
        return [(f"log of node {n.id}", n.log_tail(lines)) for n in self.nodes.values()]

    def panics(self):
        """Returns the log lines that no injected fault explains, such as panics."""
        return [
            f"node {node.id}: {line}"
            for node in self.nodes.values()
            if node.log.exists()
            for line in node.log.read_text(errors="replace").splitlines()
            if "panicked" in line
        ]

    def close(self):
        for node in self.nodes.values():
            node.kill()
        if self.network:
            self.network.close()
