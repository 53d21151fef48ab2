"""Paths of the programs that the tests run. Everything fetched or built is in `target/`."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
FETCHED = TARGET / "compat"
JARS = FETCHED / "kafka"
CLASSES = FETCHED / "classes"
GOLDEN = TESTS / "golden"
LOG4J = TESTS / "harness" / "log4j2.yaml"
SORDINI = Path(os.environ.get("SORDINI_BIN", TARGET / "debug" / "sordini"))

CLASSPATH = f"{CLASSES}:{JARS}/*"
# For short-lived JVMs, the C1 compiler and the serial collector use the least CPU.
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512M"]
