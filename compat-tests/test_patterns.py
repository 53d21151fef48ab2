"""Patterns of clients, compared with RE2/J, with which Apache Kafka compiles them.

golden/patterns.jsonl has patterns with the texts that RE2/J matches, or why it refuses a pattern.
A unit test of `src/base/re2` compares Sordini with this file. To add a pattern, add a line such as
["a|b", {"ab": false}] and let `--broker apache-kafka --record` write what RE2/J makes of it.
"""

import json
import random
import time

from differential.wire import Connection
from harness import patterns
from harness.paths import GOLDEN

FILE = GOLDEN / "patterns.jsonl"
SEED, PATTERNS, TEXTS = 1, 3_000, 40
INVALID_REGULAR_EXPRESSION = 128
# COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE and NOT_COORDINATOR.
_LOADING = (14, 15, 16)
_READY_TIMEOUT_S = 30


def judge(tool_host, asked):
    """Returns what RE2/J makes of each of [(pattern, texts)]."""
    lines = "".join(json.dumps([pattern, *texts]) + "\n" for pattern, texts in asked)
    printed = tool_host.run("re2-patterns", [], stdin=lines).ok().lines
    for (_, texts), line in zip(asked, printed, strict=True):
        outcome = json.loads(line)
        yield outcome if isinstance(outcome, str) else dict(zip(texts, outcome, strict=True))


def test_golden_file_has_what_re2j_says(request, tool_host):
    golden = [json.loads(line) for line in FILE.read_text().splitlines()]
    asked = [(pattern, outcome if isinstance(outcome, dict) else ()) for pattern, outcome in golden]
    found = [[pattern, it] for (pattern, _), it in zip(asked, judge(tool_host, asked))]
    if request.config.getoption("--record"):
        FILE.write_text("".join(json.dumps(line) + "\n" for line in found))
        return
    assert found == golden
    assert len({pattern for pattern, _ in golden}) == len(golden), "a pattern is there twice"


def test_random_patterns_list_the_same_transactions(own_broker, tool_host):
    """ListTransactions returns the transactional ids that RE2/J matches, or refuses the pattern."""
    rng = random.Random(SEED)
    ids = patterns.texts(rng, TEXTS)
    made = [patterns.pattern(rng) for _ in range(PATTERNS)]
    # An empty pattern lists all transactions.
    made = [pattern for pattern in dict.fromkeys(made) if pattern]
    connection = Connection(own_broker.start().port)
    for name in ids:
        init_producer(connection, name)
    wrong, refused, matched = [], 0, 0
    for pattern, expected in zip(made, judge(tool_host, [(pattern, ids) for pattern in made])):
        answer = connection.request("ListTransactions", 2, {"transactionalIdPattern": pattern})
        found = {it["transactionalId"] for it in answer["transactionStates"]}
        if isinstance(expected, str):
            refused += 1
            is_same = answer["errorCode"] == INVALID_REGULAR_EXPRESSION
        else:
            expected = {name for name in ids if expected[name]}
            matched += bool(expected)
            is_same = answer["errorCode"] == 0 and found == expected
        if not is_same:
            wrong.append(f"{pattern!r}: {expected!r}, not {found or answer['errorCode']!r}")
    connection.close()
    assert not wrong, "\n".join(wrong)
    assert min(refused, matched) > PATTERNS / 10, "the patterns are all alike"


def init_producer(connection, name):
    """Makes the broker know this transactional id."""
    asked = {"transactionalId": name, "transactionTimeoutMs": 60_000, "producerId": -1,
             "producerEpoch": -1}  # fmt: skip
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while (code := connection.request("InitProducerId", 4, asked)["errorCode"]) in _LOADING:
        assert time.monotonic() < deadline, f"no coordinator for {name!r}"
        connection.request("FindCoordinator", 3, {"key": name, "keyType": 1})
        time.sleep(0.05)
    assert code == 0, name
