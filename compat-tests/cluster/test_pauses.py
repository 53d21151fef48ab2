"""Nodes that are paused, restarted one by one, or have a full disk."""

import subprocess

import pytest
from harness.network import is_possible
from test_kills import not_the_controller


@pytest.mark.parametrize("whom", ["leader", "controller"])
def test_pause(cluster, at_work, whom):
    """SIGSTOP for longer than a session, then SIGCONT. The node resumes with old leaderships."""
    work = at_work(cluster)
    victim = cluster.controller() if whom == "controller" else not_the_controller(cluster)
    role = "the controller" if whom == "controller" else "a leader"
    work.through(f"SIGSTOP of {role}", cluster[victim].pause)
    work.through(f"SIGCONT of {role}", cluster[victim].resume)
    cluster.wait_until_in_sync()
    work.end()


def test_a_short_pause_fences_nobody(cluster, at_work):
    """A pause of two seconds, less than a broker's session, changes no leader."""
    work = at_work(cluster)
    topic = work.topics[0]
    victim = not_the_controller(cluster)
    before = {p: part.leader for p, part in cluster.metadata([topic]).topics[topic].items()}

    def pause():
        cluster[victim].pause()
        subprocess.run(["sleep", "2"], check=True)
        cluster[victim].resume()

    work.through("2 s of SIGSTOP of a leader", pause)
    after = {p: part.leader for p, part in cluster.metadata([topic]).topics[topic].items()}
    assert after == before
    work.end()


def test_rolling_restart(cluster, at_work, run):
    """Restarts the nodes one by one, as an operator does. No client sees an error."""
    work = at_work(cluster)
    for node_id in (1, 2, 3):
        work.through(f"controlled restart of {node_id}", lambda n=node_id: cluster.restart(n))
    work.end()
    assert work.client_errors() == []


@pytest.fixture
def small_disk(cluster):
    """Mounts a small file system as node 3's directory."""
    if not is_possible():
        pytest.skip("needs root")
    node = cluster[3]
    node.stop()
    place = node.dir / "small"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", place], check=True)
    subprocess.run(["cp", "-a", node.data, place], check=True)
    node.settings["log.dirs"] = str(place / "data")
    cluster.start(3)
    cluster.wait_until_in_sync()
    yield place
    node.kill()
    del node.settings["log.dirs"]
    subprocess.run(["rm", "-rf", node.data], check=True)
    subprocess.run(["cp", "-a", place / "data", node.dir], check=True)
    subprocess.run(["umount", place], check=True)


def test_full_disk(cluster, small_disk, at_work):
    """One node's disk fills up. The other nodes serve on. With free space, the node catches up."""
    work = at_work(cluster)
    ballast = small_disk / "ballast"

    def fill():
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], capture_output=True)

    work.through("a full disk", fill)
    ballast.unlink()
    node = cluster[3]
    if node.process.poll() is None:
        node.stop()
    node.process = None
    cluster.start(3)
    cluster.wait_until_in_sync()
    work.end()
