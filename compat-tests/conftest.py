"""Fixtures of the tests of one node: one broker for the run, one JVM for the stock tools.

    pytest                                against Sordini
    pytest --broker apache-kafka          against Apache Kafka itself: all tests must pass there
    pytest --broker apache-kafka --record writes golden/ from what Apache Kafka prints
"""

import pytest
from harness.broker import KAFKA_KIND, SORDINI_KIND, Broker
from harness.paths import GOLDEN
from harness.programs import CLOSING_LINES
from harness.shell import Shell
from harness.tools import ToolHost


def pytest_addoption(parser):
    parser.addoption("--broker", choices=[SORDINI_KIND, KAFKA_KIND], default=SORDINI_KIND)
    parser.addoption("--record", action="store_true", help="write golden/ from Apache Kafka")


def pytest_configure(config):
    if config.getoption("--record") and config.getoption("--broker") != KAFKA_KIND:
        raise pytest.UsageError("--record takes --broker apache-kafka")


@pytest.fixture(scope="session")
def kind(request):
    """The kind of broker under test."""
    return request.config.getoption("--broker")


@pytest.fixture(scope="session")
def tool_host():
    host = ToolHost()
    yield host
    host.close()


@pytest.fixture(scope="session")
def broker(kind, tmp_path_factory):
    """The broker that most tests share. Each test has its own topics and groups."""
    broker = Broker(kind, tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(kind, tmp_path):
    """A broker for this test alone, not yet started."""
    broker = Broker(kind, tmp_path)
    yield broker
    broker.kill()


@pytest.fixture(scope="session", params=[1, 2], ids=["version 1", "version 2"])
def transactions_broker(request, kind, tool_host, tmp_path_factory):
    """A broker with this `transaction.version`. It checks often for overdue transactions."""
    interval = "transaction_abort_timed_out_transaction_cleanup_interval_ms"
    directory = tmp_path_factory.mktemp("transactions")
    broker = Broker(kind, directory, **{interval: "200"}).start()
    if request.param < 2:
        run = Shell(broker, tool_host, None, record=False)
        run(f"kafka-features downgrade --feature transaction.version={request.param}").ok()
    yield broker
    broker.stop()


@pytest.fixture
def shell(request, broker, tool_host):
    """Runs command lines against the shared broker, and compares them with the golden file."""
    name = request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")
    folder = GOLDEN / request.module.__name__.removeprefix("test_")
    record = request.config.getoption("--record")
    return Shell(broker, tool_host, folder / f"{name}.txt", record)


@pytest.fixture
def dump(shell, written):
    """Runs kafka-dump-log with paths below the data directory of a stopped broker, which the
    fixture `written` of the test's file has filled."""

    def run(path, options="", **how):
        shell.broker = written
        return shell(f"kafka-dump-log --files {written.data / path} {options}", **how)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Compares inside the test, so that a difference is a failure and not an error."""
    result = yield
    if "shell" in pyfuncitem.funcargs:
        pyfuncitem.funcargs["shell"].compare()
    return result


def pytest_terminal_summary(terminalreporter):
    if CLOSING_LINES:
        terminalreporter.section("programs in other languages")
        for line in CLOSING_LINES:
            terminalreporter.write_line(line)
