"""Apache Kafka's Java producer, consumer and admin client: tools/ClientTests.java."""

from harness.broker import FAST_HEARTBEATS
from harness.paths import CLASSPATH, JAVA
from harness.programs import run_program


def run_tests(broker, pattern=""):
    main = [*JAVA, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", CLASSPATH]
    command = [*main, "sordini.compat.ClientTests", broker.bootstrap, pattern]
    run_program("Java clients", command, " passed, ")


def test_java_clients(broker):
    run_tests(broker, "^(?!transaction|consumer group|conversion)")


def test_consumer_protocol(own_broker):
    own_broker.settings |= FAST_HEARTBEATS
    own_broker.start()
    run_tests(own_broker, "^consumer group")


def test_group_conversions(own_broker):
    own_broker.settings |= FAST_HEARTBEATS
    own_broker.start()
    run_tests(own_broker, "^conversion")


def test_transactions(transactions_broker):
    run_tests(transactions_broker, "^transaction")


def test_records_outlive_a_retention_check(own_broker):
    """The program's records have timestamps of 1970. Here retention runs all the time and not only
    30 s after the start, so that a topic whose records may expire fails every run."""
    for key in ("log.retention.check.interval.ms", "log.initial.task.delay.ms"):
        own_broker.settings[key] = "100"
    own_broker.start()
    run_tests(own_broker, "^consume with min bytes$")
