"""kcat, a command line client on librdkafka."""

import json
import subprocess

import pytest
from harness.programs import need


@pytest.fixture
def kcat(broker):
    need("kcat")

    def run(*args, stdin=""):
        done = subprocess.run(
            ["kcat", "-b", broker.bootstrap, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"kcat {args}: {done.stderr}"
        return done.stdout

    return run


def test_metadata(kcat, broker):
    kcat("-P", "-t", "kcat-listed", stdin="v\n")
    listed = json.loads(kcat("-L", "-J"))
    assert [(b["id"], b["name"]) for b in listed["brokers"]] == [(1, broker.bootstrap)]
    (topic,) = [t for t in listed["topics"] if t["topic"] == "kcat-listed"]
    assert topic["partitions"][0]["leader"] == 1
    assert topic["partitions"][0]["isrs"] == [{"id": 1}]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_keys_headers_and_compression(kcat, codec):
    topic = f"kcat-{codec}"
    lines = "".join(f"k{n}:v{n}\n" for n in range(300))
    kcat("-P", "-t", topic, "-K:", "-z", codec, "-H", "h1=a", "-H", "h1=b", stdin=lines)
    read = kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k:%s %h %o\\n")
    assert read.splitlines() == [f"k{n}:v{n} h1=a,h1=b {n}" for n in range(300)]


def test_group(kcat):
    kcat("-P", "-t", "kcat-grouped", stdin="".join(f"{n}\n" for n in range(100)))
    group = ["-G", "kcat-group", "-q", "-X", "auto.offset.reset=earliest", "kcat-grouped"]
    read = kcat("-c", "60", *group).split() + kcat("-c", "40", *group).split()
    assert read == [str(n) for n in range(100)]


def test_offset_for_time(kcat):
    kcat("-P", "-t", "kcat-timed", stdin="v\n")
    assert kcat("-Q", "-t", "kcat-timed:0:1").split() == ["kcat-timed", "[0]", "offset", "0"]


def test_offsets_from_the_end(kcat):
    kcat("-P", "-t", "kcat-tail", stdin="".join(f"{n}\n" for n in range(10)))
    assert kcat("-C", "-t", "kcat-tail", "-o", "-3", "-e", "-q").split() == ["7", "8", "9"]


def test_idempotent(kcat):
    idempotent = ["-P", "-t", "kcat-once", "-X", "enable.idempotence=true"]
    kcat(*idempotent, stdin="".join(f"{n}\n" for n in range(1000)))
    read = kcat("-C", "-t", "kcat-once", "-o", "beginning", "-e", "-q").split()
    assert read == [str(n) for n in range(1000)]
