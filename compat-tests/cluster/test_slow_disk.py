"""Disks that take two seconds for each sync: commits take longer, and all else stays as it is."""

import contextlib
import shutil
import subprocess
import time

import pytest
from harness.broker import SORDINI_KIND
from harness.network import is_possible

DELAY_US = 2_000_000


@contextlib.contextmanager
def slow_syncs(nodes):
    """Each fsync and fdatasync of these nodes takes so much longer."""
    calls = "fsync,fdatasync"
    tracers = [
        subprocess.Popen(
            ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(node.process.pid)]
            + ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit={DELAY_US}"],
            stderr=subprocess.PIPE,
        )
        for node in nodes
    ]
    try:
        time.sleep(1)
        for tracer in tracers:
            assert tracer.poll() is None, tracer.stderr.read()
        yield
    finally:
        for tracer in tracers:
            tracer.terminate()
            tracer.wait(timeout=30)


def lines_of(cluster, text):
    logs = (node.log.read_text(errors="replace") for node in cluster.nodes.values())
    return sum(log.count(text) for log in logs)


@pytest.mark.parametrize("where", ["the controller", "all nodes"])
def test_slow_disks_change_no_leader_and_fence_no_broker(cluster, kind, run, where):
    if kind != SORDINI_KIND or shutil.which("strace") is None or not is_possible():
        pytest.skip("needs strace, root, and a process that is no JVM")
    before = cluster.controller_epoch()
    fenced = lines_of(cluster, "broker fenced")
    nodes = cluster.running() if where == "all nodes" else [cluster[before[0]]]
    name = where.replace(" ", "-")
    with slow_syncs(nodes):
        for number in range(2):
            began = time.monotonic()
            run(f"kafka-topics --create --topic {name}-{number} --partitions 2").ok()
            if where == "all nodes":
                assert time.monotonic() - began > DELAY_US / 1e6, "a commit waits for the disks"
            assert cluster.controller_epoch() == before
        time.sleep(4)
        assert cluster.controller_epoch() == before
    assert lines_of(cluster, "broker fenced") == fenced
