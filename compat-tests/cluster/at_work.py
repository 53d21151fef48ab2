"""Puts stock clients to work on a cluster, measures how long faults stop them, and checks for loss.

Producers are idempotent with acks=all; a consumer group reads and commits. A pause is the time in
which a partition makes no progress: no acknowledged record, no completed commit.
"""

import itertools
import os
import time

from confluent_kafka.admin import AdminClient, NewTopic
from harness import wire
from harness.broker import KAFKA_KIND
from harness.history import check, read_all
from harness.loads import Group, JavaLoad, LibrdkafkaLoad, wait_until_begun

PARTITIONS = 6
# Short timeouts, so that the test measures the cluster and not a client that waits for a dead node.
LIBRDKAFKA = {
    "socket.timeout.ms": 1500,
    "socket.connection.setup.timeout.ms": 1000,
    "topic.metadata.refresh.interval.ms": 500,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.max.ms": 200,
}
JAVA = {
    "request_timeout_ms": 1500,
    "metadata_max_age_ms": 500,
    "socket_connection_setup_timeout_ms": 1000,
}
# Limits of pauses. Sordini must keep them; for Apache Kafka they are only measured. If no process
# died, only the group is judged: a producer may get metadata from a node that is cut off and still
# acts as leader, and only the producer's own timeouts end that.
AFTER_ANY_FAULT_S = 10
AFTER_A_DEATH_S = 2
# Factor for these limits: more than 1 on busy machines.
PATIENCE = float(os.environ.get("CLUSTER_PATIENCE", "1"))
GROUP = "group commits"
GROUP_CONFIGS = 32
_numbers = itertools.count(1)


class Table:
    """The longest pause of each stream, by fault."""

    def __init__(self):
        self._rows = []

    def add(self, fault, pauses):
        self._rows.append((fault, pauses))
        print(fault, {name: round(pause, 2) for name, pause in pauses.items()}, flush=True)

    def __bool__(self):
        return bool(self._rows)

    def lines(self):
        names = list(dict.fromkeys(name for _, pauses in self._rows for name in pauses))
        yield "".join([f"{'fault':44}", *(f"{name:>14}" for name in names)])
        for fault, pauses in self._rows:
            cells = (f"{pauses[name]:14.2f}" if name in pauses else " " * 14 for name in names)
            yield "".join([f"{fault:44}", *cells])


TABLE = Table()


class AtWork:
    """Two producers and a consumer group on their own topics, whose leaders are on all nodes."""

    def __init__(
        self, cluster, has_guest=False, replicas=3, min_isr=2, rate=600, in_flight=5,
        protocol="classic",
    ):  # fmt: skip
        self._cluster, self._rate = cluster, rate
        self._group = {"has_guest": has_guest, "protocol": protocol}
        self._in_flight = {"max.in.flight.requests.per.connection": in_flight}
        number = next(_numbers)
        self.topics = [f"at-work-{number}-java", f"at-work-{number}-librdkafka"]
        self._group_id = f"at-work-{number}"
        self._config = {"min.insync.replicas": str(min_isr), "segment.bytes": "1048576"}
        self._replicas = replicas
        self._loads, self.group, self._is_ended = [], None, False

    def start(self):
        cluster = self._cluster
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        topics = [
            NewTopic(name, PARTITIONS, self._replicas, config=self._config) for name in self.topics
        ]
        for made in admin.create_topics(topics, operation_timeout=30).values():
            made.result(60)
        if self._group == {"has_guest": True, "protocol": "consumer"}:
            # The request by which the guest leaves may be lost.
            session = {(GROUP_CONFIGS, self._group_id): ("consumer.session.timeout.ms", "6000")}
            outcomes = wire.set_configs(cluster.running()[0].address, session)
            assert [code for code, _ in outcomes.values()] == [0], outcomes
        java, librdkafka = self.topics
        bootstrap = cluster.bootstrap
        self._loads = [
            JavaLoad(bootstrap, java, PARTITIONS, rate=self._rate, **JAVA),
            LibrdkafkaLoad(bootstrap, librdkafka, PARTITIONS, **LIBRDKAFKA, **self._in_flight),
        ]
        # A broker of Apache Kafka may not have the new topic yet. A member that joins without its
        # partitions then gets them at the next refresh.
        refresh = {"topic.metadata.refresh.interval.ms": 5_000}
        config = {**LIBRDKAFKA, "group.id": self._group_id, **refresh}
        self.group = Group(bootstrap, librdkafka, **self._group, **config)
        wait_until_begun(self._loads)
        self._wait_for_all(time.monotonic(), 90)
        return self

    def _streams(self):
        return {
            "java acks": self._loads[0].progress(),
            "librdkafka acks": self._loads[1].progress(),
            GROUP: self.group.progress(),
        }

    def _tell_all(self):
        """Prints the logs of the group and of all nodes, to explain a failure."""
        print(f"-- the group, at {time.monotonic():.2f}\n{self.group.told}")
        for node in self._cluster.nodes.values():
            print(f"-- node {node.id}\n{node.log_tail()}", flush=True)

    def _behind(self, since):
        """Returns the partitions of all streams that have made no progress since then."""
        behind = []
        for name, events in self._streams().items():
            on = set()
            for at, partition in reversed(events):
                if at <= since or len(on) == PARTITIONS:
                    break
                on.add(partition)
            behind += [f"{name} of {p}" for p in range(PARTITIONS) if p not in on]
        return behind

    def _wait_for_all(self, since, limit):
        start = time.monotonic()
        while behind := self._behind(since):
            waited = time.monotonic() - start
            if waited >= limit:
                self._tell_all()
                raise AssertionError(f"no progress for {waited:.1f} s: {', '.join(behind)}")
            time.sleep(0.05)

    def through(self, fault, act, limit=AFTER_ANY_FAULT_S, watch=2.0):
        """Calls `act`, waits for progress of all partitions, and judges the longest pause.

        Responses to requests that were in flight at the fault do not count: progress counts from
        half a second later. After the recovery, everything must make progress for `watch` seconds.
        """
        since = time.monotonic()
        act()
        kind = self._cluster.kind
        self._wait_for_all(max(since + 0.5, time.monotonic() - 1), 90)
        until = time.monotonic() + watch
        time.sleep(watch)
        self._wait_for_all(until - 0.5, 90)
        pauses = self._pauses(since, until)
        TABLE.add(f"{kind}: {fault}", pauses)
        if kind != KAFKA_KIND:
            judged = pauses if limit == AFTER_A_DEATH_S else {GROUP: pauses[GROUP]}
            limit *= PATIENCE
            too_long = {name: f"{s:.2f} s" for name, s in judged.items() if s > limit}
            assert not too_long, f"{fault}: more than {limit:g} s without progress: {too_long}"
        return pauses

    def _pauses(self, since, until):
        """Returns, by stream, the longest time without progress of one of its partitions."""
        longest = {}
        for name, events in self._streams().items():
            last, worst = dict.fromkeys(range(PARTITIONS), since), 0
            for at, partition in events:
                if since <= at:
                    if last[partition] < until:
                        worst = max(worst, at - last[partition])
                    last[partition] = at
            longest[name] = worst
        return longest

    def end(self):
        """Stops the load and checks the topics against the responses that the clients got."""
        for load in self._loads:
            load.end()
        self._cluster.wait_until_in_sync()
        totals = {}
        for load in self._loads:
            found = read_all(self._cluster.bootstrap, load.topic, PARTITIONS)
            acknowledged, sent = load.told()
            check(load.topic, PARTITIONS, found, acknowledged, sent)
            totals[load.topic] = sent
            if load.topic == self.group.topic:
                self.group.catch_up({p: len(records) for p, records in found.items()})
                self.group.end()
                self._check_what_was_read(found)
        assert self.group.problems == []
        assert min(totals.values()) > 100, "there was a load"
        self._is_ended = True
        return totals

    def _check_what_was_read(self, found):
        for (partition, offset), number in self.group.seen.items():
            assert found[partition][offset] == (offset, number), (
                f"{number} was read from {self.group.topic}-{partition} at {offset} and went away"
            )

    def client_errors(self):
        """Returns the errors that the clients' callbacks got, without broken connections."""
        return self._loads[1].errors + self.group.errors

    def kill(self):
        if self._is_ended or self.group is None:
            return
        for load in self._loads:
            load.kill()
            print(f"{load.topic} told of errors:", *load.errors[-40:], sep="\n", flush=True)
        self.group.end()
