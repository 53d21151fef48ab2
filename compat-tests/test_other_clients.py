"""Clients in other languages, each with its own tests and test runner."""

import os
import shutil

from harness.paths import FETCHED, TESTS
from harness.programs import need, run_program


def test_go(broker):
    """franz-go, with `go test`."""
    need("go")
    command = ["go", "test", "-count=1", "-v", "./..."]
    env = {"KAFKA_BOOTSTRAP": broker.bootstrap, "GOFLAGS": "-mod=mod -buildvcs=false"}
    run_program("franz-go", command, "ok  \t", cwd=TESTS / "go", env=env)


def test_node(broker):
    """kafkajs, with `node --test` in a copy under target/, where npm installs its packages."""
    need("npm")
    folder = FETCHED / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json", "kafkajs.test.mjs"):
        shutil.copy(TESTS / "node" / file, folder / file)
    if not (folder / "node_modules" / "kafkajs").exists():
        run_program("npm", ["npm", "ci", "--no-audit", "--no-fund"], "added", cwd=folder)
    env = {"KAFKA_BOOTSTRAP": broker.bootstrap, "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
    run_program("kafkajs", ["node", "--test", "kafkajs.test.mjs"], "# pass", cwd=folder, env=env)


def test_rdkafka(broker):
    """The rdkafka crate, with `cargo test` in its own package, because it compiles librdkafka."""
    need("cargo")
    env = {
        "KAFKA_BOOTSTRAP": broker.bootstrap,
        "CARGO_TARGET_DIR": os.environ.get("COMPAT_RDKAFKA_TARGET", str(FETCHED / "rdkafka")),
        # Halves the time that the compiler needs for librdkafka.
        "CFLAGS": "-O0 -g0",
        "CXXFLAGS": "-O0 -g0",
    }
    command = ["cargo", "test", "--quiet", "--locked"]
    run_program("rdkafka", command, "test result:", cwd=TESTS / "rdkafka", env=env, timeout=1500)
