"""Starts and stops: refused starts, warnings, exit codes, signals."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from harness.broker import KAFKA_KIND, SORDINI, free_port
from harness.log_lines import LogLines
from harness.paths import ROOT

STOPPED_S = 20


@pytest.fixture(autouse=True)
def sordini_only(kind):
    if kind == KAFKA_KIND:
        pytest.skip("Apache Kafka has its own start")


@pytest.fixture
def overrides(tmp_path):
    """Settings of a broker with free ports and a directory that does not exist yet."""
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{free_port()}",
        "log.dirs": tmp_path / "new" / "data",
        "http.listener": "none",
    }


def command(overrides):
    pairs = [f"--override={name}={value}" for name, value in overrides.items()]
    return [SORDINI, "serve", *pairs]


def refused(overrides, **environment):
    """Returns the last line of a start that fails."""
    env = {**os.environ, **environment}
    ended = subprocess.run(command(overrides), env=env, capture_output=True, text=True, timeout=STOPPED_S)
    assert ended.returncode == 1, ended.stderr
    return ended.stderr.splitlines()[-1]


class Started:
    def __init__(self, overrides, prefix=("env", "--default-signal=HUP")):
        # The default prefix resets signals that are ignored if the tests run under nohup.
        self.process = subprocess.Popen(
            [*prefix, *command(overrides)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RUST_LOG": "info"},
        )
        self.banner = self.process.stdout.readline()

    def end(self, how):
        self.process.send_signal(how)
        _, log = self.process.communicate(timeout=STOPPED_S)
        return self.process.returncode, log


def test_missing_protection_stops_the_start(overrides, tmp_path):
    authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    why = refused({**overrides, "authorizer.class.name": authorizer})
    assert f"authorizer.class.name={authorizer} asks for protection" in why
    assert not (tmp_path / "new").exists()


def test_invalid_log_filters_stop_the_start(overrides, tmp_path):
    assert "Invalid value verbose for logging.level" in refused({**overrides, "logging.level": "verbose"})
    assert "Invalid value garbage for RUST_LOG" in refused(overrides, RUST_LOG="garbage")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("taken", ["listener", "controller", "http"])
def test_taken_port_leaves_nothing_behind(overrides, tmp_path, taken):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        if taken == "listener":
            overrides["listeners"] = f"PLAINTEXT://127.0.0.1:{port}"
        elif taken == "controller":
            overrides["listeners"] += f",CONTROLLER://127.0.0.1:{port}"
        else:
            overrides["http.listener"] = f"127.0.0.1:{port}"
        assert f"127.0.0.1:{port}" in refused(overrides)
    assert not (tmp_path / "new").exists()


def test_one_of_two_simultaneous_starts_gets_the_port(tmp_path):
    """One of two simultaneous starts on a port fails. Without the broker's second check of the
    port, both would start in most rounds."""
    for number in range(12):
        port = free_port()
        dirs = [tmp_path / f"{number}-{name}" for name in ("a", "b")]
        settings = {"listeners": f"PLAINTEXT://127.0.0.1:{port}", "http.listener": "none"}
        started = [
            subprocess.Popen(
                command({**settings, "log.dirs": path}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for path in dirs
        ]
        try:
            deadline = time.monotonic() + STOPPED_S
            while not (ended := [it for it in started if it.poll() is not None]):
                assert time.monotonic() < deadline, "both go on"
                time.sleep(0.01)
            (loser,) = ended
            assert f"127.0.0.1:{port}" in loser.communicate()[1]
            assert not dirs[started.index(loser)].exists()
            (winner,) = (it for it in started if it is not loser)
            assert "listens on" in winner.stdout.readline()
            winner.send_signal(signal.SIGTERM)
            assert winner.wait(STOPPED_S) == 0
            assert dirs[started.index(winner)].exists()
        finally:
            for process in started:
                process.kill()
                process.communicate()


def test_unusable_metadata_directory_leaves_nothing_behind(overrides, tmp_path):
    (tmp_path / "file").touch()
    overrides["metadata.log.dir"] = tmp_path / "file" / "metadata"
    assert str(tmp_path / "file") in refused(overrides)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_stop_in_order(overrides, how):
    code, log = Started(overrides).end(how)
    assert code == 0 and f'stopping signal="{how.name}"' in log and "stopped" in log
    assert (overrides["log.dirs"] / ".kafka_cleanshutdown").exists()


def test_hangup_is_ignored_under_nohup(overrides):
    started = Started(overrides, prefix=["nohup"])
    started.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    code, log = started.end(signal.SIGTERM)
    assert code == 0 and "SIGHUP" not in log


def test_banner_is_json_where_the_log_is(overrides):
    started = Started({**overrides, "logging.format": "json"})
    fields = json.loads(started.banner)["fields"]
    assert fields["listeners"] == overrides["listeners"] and fields["node"] == 1
    _, log = started.end(signal.SIGTERM)
    assert all(json.loads(line)["level"] for line in log.splitlines())


def test_keys_are_printed():
    printed = subprocess.run([SORDINI, "config"], capture_output=True, text=True, timeout=STOPPED_S)
    keys = ROOT / "docs/configuration.md"
    assert (printed.returncode, printed.stdout) == (0, keys.read_text())


def test_topic_configs_without_effect_are_warned_of(own_broker, tool_host):
    from harness.shell import Shell

    own_broker.start()
    run = Shell(own_broker, tool_host, None, record=False)
    run("kafka-topics --create --topic created --config preallocate=true").ok()
    run("kafka-topics --create --topic compacted --config cleanup.policy=compact").ok()
    run("kafka-topics --create --topic plain").ok()
    alter = "kafka-configs --alter --entity-type topics --entity-name plain --add-config"
    run(f"{alter} preallocate=true").ok()
    consume = "kafka-console-consumer --topic plain --group g --timeout-ms 3000"
    run(consume)
    assert own_broker.stop() == 0
    log = own_broker.log_tail(1000)
    warnings = [line for line in log.splitlines() if "no effect yet" in line]
    assert any('topic="created" configs=["preallocate"]' in line for line in warnings), log
    assert any('name="plain" configs=["preallocate"]' in line for line in warnings), log
    assert not any("__consumer_offsets" in line or "compacted" in line for line in warnings)


def test_cluster_script_fails_over_a_running_cluster(tmp_path):
    script = [ROOT / "scripts/cluster", tmp_path / "cluster", str(free_port())]
    env = {**os.environ, "SORDINI_BIN": str(SORDINI)}
    first = subprocess.Popen(script, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert any(line.startswith("try:") for line in first.stdout)
        second = subprocess.run(script, env=env, capture_output=True, text=True, timeout=STOPPED_S)
        assert second.returncode == 1 and "is taken" in second.stderr, second.stderr
        assert "try:" not in second.stdout and first.poll() is None
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(STOPPED_S)


def test_example_files_form_a_cluster(tmp_path):
    """The example files of `config/`, with free ports, form a cluster."""
    names = ["server.properties", "server-1.properties", "server-2.properties"]
    texts = {name: (ROOT / "config" / name).read_text() for name in names}
    http_ports = []
    for port in ["9092", "9093", "9094", "10092", "10093", "10094", "9644", "9645", "9646"]:
        free = str(free_port())
        if port.startswith("96"):
            http_ports.append(int(free))
        texts = {name: text.replace(f":{port}", f":{free}") for name, text in texts.items()}
    nodes = []
    try:
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
            log = (tmp_path / f"{name}.log").open("w")
            nodes.append(subprocess.Popen([SORDINI, "serve", name], cwd=tmp_path, stdout=log, stderr=log))
        until = time.monotonic() + STOPPED_S
        for port in http_ports:
            while (status := readiness(port)) != 200:
                assert time.monotonic() < until, (port, status, logs_of(tmp_path))
                time.sleep(0.1)
        for name in names:
            log = LogLines(tmp_path / f"{name}.log", from_start=True)
            # Other warnings are expected while the cluster forms, for example if no leader responds.
            assert log.all() and [it for it in log.of_level("WARN") if is_about_configs(*it)] == []
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["node-1", "node-2", "node-3"]
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def is_about_configs(target, text):
    """Whether a warning is about configs. The binary itself warns about its file only."""
    return target == "sordini" or "no effect" in text


def readiness(port):
    """Returns the status of /readyz, or why there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int(connection.recv(64).split()[1])
    except (OSError, IndexError) as error:
        return str(error)


def logs_of(directory):
    return "\n".join(path.read_text() for path in sorted(directory.glob("*.log")))
