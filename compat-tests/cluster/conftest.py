"""Fixtures for tests of clusters.

    scripts/test-cluster                    against Sordini
    CLUSTER=kafka scripts/test-cluster      against Apache Kafka itself: all tests must pass there
"""

import os
import signal

import pytest
from at_work import TABLE, AtWork
from harness.broker import FAST_HEARTBEATS, KAFKA_KIND, SORDINI_KIND
from harness.cluster import Cluster
from harness.members import LiveGroup
from harness.network import Network, is_possible
from harness.programs import CLOSING_LINES
from harness.shell import Shell
from harness.tools import ToolHost

# The settings of all clusters. Racks and their selector are always on: they change nothing for
# clients without a rack.
SETTINGS = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    # How long a live follower that cannot fetch delays producers. The default is 30 s.
    "replica.lag.time.max.ms": "5000",
    # How often the controller elects leaders in topics with unclean election. Default: 5 min.
    "unclean.leader.election.interval.ms": "2000",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    **FAST_HEARTBEATS,
    "group.consumer.min.session.timeout.ms": "6000",
}


def pytest_configure():
    """Makes SIGTERM end the tests like Ctrl-C, so that namespaces and mounts are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Adds the logs of all nodes to the report of a failure. Their files may be gone later."""
    report = yield
    if report.failed:
        values = item.funcargs.values()
        clusters = [it for it in values if isinstance(it, Cluster)]
        clusters += [cluster for it in values for cluster in getattr(it, "made", [])]
        report.sections += [section for cluster in clusters for section in cluster.logs()]
    return report


@pytest.fixture(scope="session")
def kind():
    return {"sordini": SORDINI_KIND, "kafka": KAFKA_KIND}[os.environ.get("CLUSTER", "sordini")]


@pytest.fixture(scope="session")
def tool_host():
    host = ToolHost()
    yield host
    host.close()


@pytest.fixture(scope="session")
def shared_cluster(kind, tmp_path_factory):
    """A cluster of three nodes in three racks, for the whole run."""
    cluster = Cluster(kind, tmp_path_factory.mktemp("shared"), **SETTINGS)
    for node in cluster.nodes.values():
        node.settings["broker.rack"] = f"rack-{node.id}"
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def cluster(shared_cluster):
    """The cluster that most tests share, repaired before each test. Tests have their own topics."""
    shared_cluster.make_whole()
    yield shared_cluster
    assert shared_cluster.panics() == []


@pytest.fixture
def new_cluster(kind, tmp_path):
    """Makes clusters for this test alone, not yet started. They stop at the end of the test."""
    made = []

    def make(**options):
        cluster = Cluster(kind, tmp_path / f"cluster-{len(made)}", **{**SETTINGS, **options})
        made.append(cluster)
        return cluster

    make.made = made
    yield make
    for cluster in made:
        cluster.close()
        assert cluster.panics() == []


@pytest.fixture(scope="module")
def networked(kind, tmp_path_factory):
    """A cluster of three nodes, each in its own network namespace."""
    if not is_possible():
        pytest.skip("needs root and ip")
    cluster = Cluster(
        kind, tmp_path_factory.mktemp("networked"), network=Network([1, 2, 3]), **SETTINGS
    )
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def networked_cluster(networked):
    networked.make_whole()
    yield networked
    assert networked.panics() == []


@pytest.fixture
def tools(tool_host):
    """Runs stock command lines: `tools(cluster)("kafka-topics --list")`."""

    def on(cluster):
        shell = Shell(cluster, tool_host, None, record=False)
        return lambda line, **how: shell(line, transcript=False, **how)

    return on


@pytest.fixture
def live_group(cluster, live_groups):
    """Makes groups with live members on the shared cluster."""
    return lambda name: live_groups(cluster, name)


@pytest.fixture
def live_groups(tool_host):
    """Makes groups with live members. They leave at the end of the test."""
    made = []

    def make(cluster, name, protocol="consumer"):
        shell = Shell(cluster, tool_host, None, record=False)
        made.append(LiveGroup(cluster, shell, name, protocol))
        return made[-1]

    yield make
    for group in made:
        group.close()


@pytest.fixture
def run(cluster, tools):
    """Runs stock command lines against the shared cluster."""
    return tools(cluster)


@pytest.fixture
def topic(request):
    """A topic name that only this test uses."""
    return request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")


@pytest.fixture
def at_work():
    """Puts a cluster under load, until the end of the test at the latest."""
    begun = []

    def start(cluster, **options):
        begun.append(AtWork(cluster, **options))
        return begun[-1].start()

    yield start
    for work in begun:
        work.kill()


def pytest_terminal_summary(terminalreporter):
    for line in CLOSING_LINES:
        terminalreporter.write_line(line)
    if TABLE:
        terminalreporter.section("pauses, in seconds")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
