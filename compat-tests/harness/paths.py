"""Where the tests find what they run. Everything fetched or built lies under `target/`."""

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
# Short-lived JVMs: the first compiler tier and the serial collector cost the least CPU.
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512M"]
