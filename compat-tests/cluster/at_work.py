"""A cluster under the load of stock clients, what a fault did to them, and what was lost.

Producers are idempotent and wait for all replicas; a group reads and commits. What counts is, per
partition, how long nobody got on: no record acknowledged, no commit answered.
"""

import itertools
import os
import time

from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import KAFKA_KIND
from harness.history import check, read_all
from harness.loads import Group, JavaLoad, LibrdkafkaLoad, wait_until_begun

PARTITIONS = 6
# A client that waits long for a node that does not answer measures itself.
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
# What is promised of Sordini; of Apache Kafka the same is only measured. Where no process died it
# is the group that must get on: a producer may ask a node for metadata that is cut off and believes
# itself the leader, and only its own timeouts end that.
AFTER_ANY_FAULT_S = 10
AFTER_A_DEATH_S = 2
# Times what is promised; more than 1 on machines that are busy with something else.
PATIENCE = float(os.environ.get("CLUSTER_PATIENCE", "1"))
GROUP = "group commits"
_numbers = itertools.count(1)


class Table:
    """The longest pauses seen, by fault."""

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
    """Clients at work on topics of their own, spread over all nodes."""

    def __init__(self, cluster, has_guest=False, replicas=3, min_isr=2, rate=600, in_flight=5):
        self._cluster, self._has_guest, self._rate = cluster, has_guest, rate
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
        java, librdkafka = self.topics
        bootstrap = cluster.bootstrap
        self._loads = [
            JavaLoad(bootstrap, java, PARTITIONS, rate=self._rate, **JAVA),
            LibrdkafkaLoad(bootstrap, librdkafka, PARTITIONS, **LIBRDKAFKA, **self._in_flight),
        ]
        config = {**LIBRDKAFKA, "group.id": self._group_id}
        self.group = Group(bootstrap, librdkafka, self._has_guest, **config)
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
        """For whoever wants to know why."""
        print(f"-- the group, at {time.monotonic():.2f}\n{self.group.told}")
        for node in self._cluster.nodes.values():
            print(f"-- node {node.id}\n{node.log_tail()}", flush=True)

    def _behind(self, since):
        """Which partitions of which stream have not got on since then."""
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
        """Lets `act` happen and waits until everyone got on; the longest pause counts.

        What was under way when it happened may still be answered: progress counts from a moment
        later. `watch` is how long everything must go on before it counts as over.
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
        """By stream, the longest time in which one of its partitions did not get on."""
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
        """Ends the load and checks what everyone was told against what is there."""
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
        """What the clients' own error callbacks were told; a broken connection is no error yet."""
        return self._loads[1].errors + self.group.errors

    def kill(self):
        if self._is_ended or self.group is None:
            return
        for load in self._loads:
            load.kill()
            print(f"{load.topic} told of errors:", *load.errors[-40:], sep="\n", flush=True)
        self.group.end()
