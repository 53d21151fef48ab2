"""Runs every case of `differential/` and compares the responses with those of Apache Kafka in
`differential/golden`. Accepted differences are in `differential/differences.json`."""

import json
import re

import pytest

from differential import schema
from differential.cases import all_cases, settings_of
from differential.transcript import Transcript
from harness.broker import SORDINI_KIND, Broker
from harness.paths import TESTS

_HERE = TESTS / "differential"
_CASES = {f"{module}-{name}": (module, name, run) for module, name, run in all_cases()}
_DIFFERENCES = json.loads((_HERE / "differences.json").read_text())
_used = set()
_MISSING = "nothing"


@pytest.fixture(scope="module")
def peers(kind, tmp_path_factory):
    """Brokers that only these cases use: topics of other tests would be in their responses."""
    started = {}

    def peer(module):
        settings = settings_of(module)
        key = json.dumps(settings)
        if key not in started:
            broker = Broker(kind, tmp_path_factory.mktemp("differential"), **settings)
            started[key] = broker.start()
        return started[key]

    yield peer
    for broker in started.values():
        broker.stop()


@pytest.mark.parametrize("case", _CASES)
def test_answers_are_those_of_apache_kafka(case, peers, request):
    module, name, run = _CASES[case]
    peer = peers(module)
    transcript = Transcript(peer, f"{module} {name}".replace("_", "-"))
    try:
        run(transcript)
    finally:
        transcript.close()
    golden = _HERE / "golden" / module / f"{name}.json"
    if request.config.getoption("--record"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(_lines(transcript.steps))
        return
    expected, got = json.loads(golden.read_text()), json.loads(json.dumps(transcript.steps))
    wrong = _wrong(case, expected, got, peer.kind == SORDINI_KIND)
    assert not wrong, "\n".join(["answers differ from Apache Kafka's:", *wrong])


def test_every_listed_difference_is_one(kind):
    """Every entry of differences.json is needed. An entry without a difference must be removed."""
    if kind != SORDINI_KIND:
        pytest.skip("differences are Sordini's")
    if _ran != set(_CASES):
        pytest.skip("not all cases ran")
    stale = [it for at, it in enumerate(_DIFFERENCES) if at not in _used]
    assert not stale, f"no longer different: {stale}"


def test_every_version_of_every_api_is_in_the_corpus(kind, peers):
    """Every version in the ApiVersions response is in a recorded step of a case."""
    if kind != SORDINI_KIND:
        pytest.skip("Sordini serves fewer APIs")
    asked = set()
    for module, name, _ in _CASES.values():
        for label in json.loads((_HERE / "golden" / module / f"{name}.json").read_text()):
            if found := re.search(r"(?:^|, )(\w+) (\d+)$", label):
                asked.add((found[1], int(found[2])))
    answer = Transcript(peers("connections"), "coverage").call("ApiVersions", 2)
    promised = {
        (schema.api_name(it["apiKey"]), version)
        for it in answer["apiKeys"]
        for version in range(it["minVersion"], it["maxVersion"] + 1)
    }
    assert promised, "ApiVersions promises nothing"
    assert not promised - asked, f"no step asks for {sorted(promised - asked)}"


def test_every_golden_file_has_its_case():
    kept = {f"{it.parent.name}-{it.stem}" for it in (_HERE / "golden").glob("*/*.json")}
    assert kept == set(_CASES)


_ran = set()


def _wrong(case, expected, got, may_differ):
    """Returns lines with the differences of two transcripts, without the accepted ones."""
    _ran.add(case)
    lines = []
    for label in dict.fromkeys([*expected, *got]):
        left = dict(_flat(expected.get(label, _MISSING)))
        right = dict(_flat(got.get(label, _MISSING)))
        for path in dict.fromkeys([*left, *right]):
            pair = left.get(path, _MISSING), right.get(path, _MISSING)
            if pair[0] == pair[1] or (may_differ and _is_listed(case, label, path, pair)):
                continue
            lines.append(f"  {label}: {path or 'answer'} is {pair[1]!r}, Kafka's {pair[0]!r}")
    return lines


def _is_listed(case, label, path, pair):
    for at, it in enumerate(_DIFFERENCES):
        if (
            re.fullmatch(it["case"], case)
            and re.fullmatch(it.get("step", ".*"), label)
            and re.fullmatch(it.get("path", ".*"), path)
            and it.get("kafka", pair[0]) == pair[0]
            and it.get("sordini", pair[1]) == pair[1]
        ):
            _used.add(at)
            return True
    return False


def _flat(value, path=""):
    """Yields a nested response as (path, value). An empty list or object is a value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            yield from _flat(item, f"{path}[{at}]")
    else:
        yield path, value


def _lines(steps):
    """Writes a transcript as JSON with one line per step, for small files and clear diffs."""
    rows = (f"{json.dumps(label)}: {json.dumps(answer)}" for label, answer in steps.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"
