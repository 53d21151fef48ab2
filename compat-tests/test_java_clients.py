"""Apache Kafka's Java producer, consumer and admin client: tools/ClientTests.java."""

from harness.paths import CLASSPATH, JAVA
from harness.programs import run_program


def test_java_clients(broker):
    main = [*JAVA, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", CLASSPATH]
    run_program("Java clients", [*main, "sordini.compat.ClientTests", broker.bootstrap], " passed, ")
