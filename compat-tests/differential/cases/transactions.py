"""The transaction coordinator: producer ids of transactional ids, and partitions of transactions.

`transaction_ends` has EndTxn, and `transaction_restarts` has what a coordinator loads.
"""

from ._transactions import SETTINGS as SHARED
from ._transactions import (
    TOPIC,
    Held,
    Producer,
    ask_states,
    by_topic,
    find_transaction_coordinator,
)

SETTINGS = SHARED
_MAX_TIMEOUT_MS = 900_000


def find_coordinator(t):
    """The first request for the coordinator of a transactional id creates the internal topic."""
    name = t.new_name("first")
    t.call("FindCoordinator", 4, {"keyType": 1, "coordinatorKeys": [name]})
    find_transaction_coordinator(t, name)
    for version in range(1, 7):
        for label, key in {"an id": name, "an empty id": ""}.items():
            body = {"key": key} if version < 4 else {"coordinatorKeys": [key]}
            t.ask(label, "FindCoordinator", version, {**body, "keyType": 1})
    t.ask("several", "FindCoordinator", 6, {"keyType": 1, "coordinatorKeys": [name, "", name]})
    t.learn_topic(TOPIC)
    asked = {"topics": [{"name": TOPIC}], "allowAutoTopicCreation": False}
    t.ask("the internal topic", "Metadata", 12, asked)
    keys = ["cleanup.policy", "compression.type", "unclean.leader.election.enable",
            "min.insync.replicas", "segment.bytes", "retention.ms", "max.message.bytes"]  # fmt: skip
    resource = {"resourceType": 2, "resourceName": TOPIC, "configurationKeys": keys}
    t.ask("its configs", "DescribeConfigs", 4, {"resources": [resource]})


def init_producer_id(t):
    name = t.new_name("id")
    find_transaction_coordinator(t, name)
    body = {"transactionalId": name, "transactionTimeoutMs": 60_000}
    first = t.call("InitProducerId", 5, body)
    assert first["errorCode"] == 0, first
    t.mask_as(first["producerId"], "the same producer", "producerId")
    t.ask_all("again", "InitProducerId", body)
    t.ask_all("no name", "InitProducerId", {**body, "transactionalId": ""})
    for timeout in (0, -1, 1, _MAX_TIMEOUT_MS, _MAX_TIMEOUT_MS + 1, 2**31 - 1, -(2**31)):
        for version in (1, 5):
            t.ask(f"timeout {timeout}", "InitProducerId", version,
                  {**body, "transactionTimeoutMs": timeout})  # fmt: skip
    ask_states(t, "the last timeout is kept", name)
    for version in (3, 4, 5):
        t.ask("a producer id alone", "InitProducerId", version,
              {**body, "producerId": first["producerId"]})  # fmt: skip
        t.ask("an epoch alone", "InitProducerId", version, {**body, "producerEpoch": 3})
        t.ask("negative", "InitProducerId", version,
              {**body, "producerId": -2, "producerEpoch": -2})  # fmt: skip


def init_with_expected_epoch(t):
    """A producer that gives its id and epoch gets the next epoch only if both are current."""
    for version in (3, 4, 5):
        for epoch in (3, 32766, 32767):
            name = f"of nothing, epoch {epoch}"
            fresh = Producer(t, f"{name}, {version}", starts=False)
            t.ask(name, "InitProducerId", version,
                  fresh.init_body(producerId=5, producerEpoch=epoch))  # fmt: skip
            t.ask(f"then without, {name}", "InitProducerId", version, fresh.init_body())
        p = Producer(t, f"id for {version}")

        def ask(label, producer_id, epoch, p=p, version=version):
            body = p.init_body(producerId=producer_id, producerEpoch=epoch)
            p.learn(t.ask(label, "InitProducerId", version, body))

        first = p.producer_id
        ask("epoch 0", first, 0)
        ask("epoch 0 again", first, 0)
        ask("epoch 1", first, 1)
        ask("an epoch two before", first, 0)
        ask("the next epoch", first, p.epoch + 1)
        ask("a far epoch", first, 32766)
        ask("epoch 32767", first, 32767)
        ask("another producer id", first + 1, p.epoch)
        ask("another producer id and epoch 32766", first + 1, 32766)
        p.init()
        ask("the last epoch after one without", first, p.epoch - 1)
        ask("the epoch from then", first, p.epoch)


def init_in_every_state(t):
    topic, held = t.topic(1), Held(t)
    waiting = []
    for version in (1, 3, 5):
        p = Producer(t, f"open for {version}").add((topic, 0))
        t.ask("an open transaction", "InitProducerId", version, p.init_body())
        p.note_state(f"it is aborted, {version}")
        p.learn(t.ask("then", "InitProducerId", version, p.init_body()))
        for commit, name in ((True, "a commit"), (False, "an abort")):
            q = Producer(t, f"{name} for {version}").add((held.topic, 0))
            q.end(commit, is_complete=False)
            t.ask(f"{name} under way", "InitProducerId", version, q.init_body())
            waiting.append((version, name, q))
    for version in (3, 5):
        for change in (0, 1):
            p = Producer(t, f"expected {change:+} for {version}").add((topic, 0))
            body = p.init_body(producerId=p.producer_id, producerEpoch=p.epoch + change)
            t.ask(f"an open one, epoch {change:+}", "InitProducerId", version, body)
            p.note_state(f"after epoch {change:+}, {version}")
            t.ask(f"an open one, epoch {change:+} again", "InitProducerId", version, body)
    held.release()
    for version, name, q in waiting:
        q.note_state(f"{name} is done, {version}")
        t.ask(f"{name} is done", "InitProducerId", version, q.init_body())


def add_partitions(t):
    topic = t.topic(3)
    for version in range(4):
        p = Producer(t, f"id for {version}")

        def ask(label, *partitions, p=p, version=version, **fields):
            body = p.add_body(version, *partitions, **fields)
            t.ask(label, "AddPartitionsToTxn", version, body)

        ask("nothing")
        p.note_state(f"after nothing, {version}")
        p.end()
        ask("one", (topic, 0))
        ask("the same", (topic, 0))
        ask("both", (topic, 0), (topic, 1))
        ask("one twice", (topic, 2), (topic, 2))
        ask("an unknown partition", (topic, 0), (topic, 7), (topic, 2))
        ask("a negative partition", (topic, -1))
        ask("an unknown topic", ("none-such", 0), (topic, 2))
        ask("odd names", ("", 0), ("bad name", 1))
        ask("internal topics", ("__consumer_offsets", 99), (TOPIC, 0))
        for name in (t.new_name("unknown"), ""):
            ask(f"id {'unknown' if name else 'empty'}", (topic, 0), transactionalId=name)
        ask("another producer id", (topic, 0), producerId=p.producer_id + 1)
        ask("producer id -1", (topic, 0), producerId=-1)
        for epoch in (p.epoch - 1, p.epoch + 1, -2, 32767):
            ask(f"epoch {epoch}", (topic, 0), producerEpoch=epoch)
        ask("an unknown partition of another epoch", (topic, 7), producerEpoch=p.epoch + 1)
        p.note_state(f"what is in it, {version}")
        twice = p.add_body(version, (topic, 1))
        twice["v3AndBelowTopics"] *= 2
        t.ask("a topic twice", "AddPartitionsToTxn", version, twice)
        none = p.add_body(version)
        none["v3AndBelowTopics"] = [{"name": topic, "partitions": []}]
        t.ask("a topic without partitions", "AddPartitionsToTxn", version, none)
        p.end()
        ask("after the end", (topic, 0))


def add_partitions_in_every_state(t):
    topic, held = t.topic(1), Held(t)
    for commit in (True, False):
        name = "commit" if commit else "abort"
        p = Producer(t, f"held {name}").add((held.topic, 0)).end(commit, is_complete=False)
        for version in (0, 1, 2, 3):
            body = p.add_body(version, (held.topic, 0))
            t.ask(f"during a {name}", "AddPartitionsToTxn", version, body)
            older = p.add_body(version, (topic, 0), producerEpoch=p.epoch - 1)
            t.ask(f"an older epoch during a {name}", "AddPartitionsToTxn", version, older)
        for version in (4, 5):
            for verify in (False, True):
                body = p.add_body(version, (held.topic, 0), verifyOnly=verify)
                label = f"during a {name}{', verify' if verify else ''}"
                t.ask(label, "AddPartitionsToTxn", version, body)
    held.release()


def add_partitions_batched(t):
    """Version 4 and later, which only brokers send."""
    topic = t.topic(3)
    for version in (4, 5):
        a, b = Producer(t, f"a{version}"), Producer(t, f"b{version}")

        def ask(label, *transactions, version=version):
            t.ask(label, "AddPartitionsToTxn", version, {"transactions": list(transactions)})

        def of(p, *partitions, verify=False, **fields):
            return {**p.identity(), "verifyOnly": verify, "topics": by_topic(*partitions), **fields}

        ask("verify an empty one", of(a, (topic, 0), verify=True))
        ask("verify nothing", of(a, verify=True))
        ask("two transactions", of(a, (topic, 0)), of(b, (topic, 0), (topic, 1)))
        ask("verify", of(a, (topic, 0), (topic, 1), verify=True), of(b, (topic, 1), verify=True))
        ask("verify and add", of(a, (topic, 1)), of(b, (topic, 2), verify=True))
        ask("unknown partitions", of(a, (topic, 2), (topic, 7)),
            of(b, ("none-such", 0), verify=True))  # fmt: skip
        ask("no id", of(a, (topic, 0), transactionalId=""), of(b, (topic, 0)))
        for verify in (False, True):
            kind = "verify " if verify else ""
            unknown = t.new_name("unknown")
            ask(f"{kind}an unknown id", of(a, (topic, 0), transactionalId=unknown, verify=verify))
            ask(f"{kind}an empty id", of(a, (topic, 0), transactionalId="", verify=verify))
            ask(f"{kind}another producer id",
                of(a, (topic, 0), producerId=a.producer_id + 1, verify=verify))  # fmt: skip
            for epoch in (a.epoch - 1, a.epoch + 1):
                ask(f"{kind}epoch {epoch}", of(a, (topic, 0), producerEpoch=epoch, verify=verify))
        a.note_state(f"a after it, {version}")
        b.note_state(f"b after it, {version}")
        a.abort()
        ask("verify after the end", of(a, (topic, 0), verify=True))
        b.abort()


def add_offsets(t):
    group = t.new_name("group")
    t.find_coordinator(group)
    for version in range(5):
        p = Producer(t, f"id for {version}")

        def ask(label, p=p, version=version, **fields):
            body = p.identity(**{"groupId": group, **fields})
            t.ask(label, "AddOffsetsToTxn", version, body)

        ask("a group")
        ask("again")
        ask("no group", groupId="")
        ask("an empty id", transactionalId="")
        ask("an unknown id", transactionalId=t.new_name("unknown"))
        ask("another producer id", producerId=p.producer_id + 1)
        for epoch in (p.epoch - 1, p.epoch + 1):
            ask(f"epoch {epoch}", producerEpoch=epoch)
        state = t.call("DescribeTransactions", 0, {"transactionalIds": [p.id]})
        topics = state["transactionStates"][0]["topics"]
        t.note(f"topics in it, {version}", [it["topic"] for it in topics])
        p.abort()
        ask("after the end")
        p.abort()


def describe_transactions(t):
    topic = t.topic(3)
    a, b = Producer(t, "a", timeout=45_000), Producer(t, "b")

    def ask(label, *names):
        ask_states(t, label, *names)

    ask("nothing")
    ask("an unknown id", t.new_name("unknown"))
    ask("an empty id", "", a.id)
    ask("empty ones", a.id, b.id)
    a.add((topic, 2), (topic, 0))
    ask("an open one", a.id)
    ask("one twice", a.id, a.id)
    b.add((topic, 1)).abort()
    a.end()
    ask("ended ones", a.id, b.id)
    b.add((topic, 1))
    ask("the next one", b.id)
    b.end(version=5)
    ask("with the next epoch", b.id)


def list_transactions(t):
    """The filters. The patterns select this case's ids, as other cases use the same broker."""
    topic, held = t.topic(1), Held(t)
    names = ("idle", "open", "done", "undone")
    empty, open_, committed, aborted = (Producer(t, name) for name in names)
    open_.add((topic, 0))
    committed.add((topic, 0)).end()
    aborted.add((topic, 0)).abort()
    preparing = Producer(t, "preparing").add((held.topic, 0)).end(is_complete=False)
    everyone = [empty, open_, committed, aborted, preparing]
    ids = {"producerIdFilters": [it.producer_id for it in everyone]}
    t.ask_all("by producer ids", "ListTransactions", ids)
    t.ask_all("by one of them", "ListTransactions",
              {"producerIdFilters": [open_.producer_id, -1, 2**62]})  # fmt: skip
    for state in ("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit",
                  "CompleteAbort", "Dead", "PrepareEpochFence"):  # fmt: skip
        t.ask_all(f"by {state}", "ListTransactions", {**ids, "stateFilters": [state]})
    t.ask_all("by states", "ListTransactions",
              {**ids, "stateFilters": ["Ongoing", "ongoing", "None", "Empty", "None"]})  # fmt: skip
    t.ask_all("by unknown states", "ListTransactions", {**ids, "stateFilters": ["open", ""]})
    for duration in (0, 1, 3_600_000, -1, -2, 2**63 - 1):
        for version in (1, 2):
            t.ask(f"longer than {duration} ms", "ListTransactions", version,
                  {**ids, "durationFilter": duration})  # fmt: skip
    for label, pattern in {
        "exactly": open_.id,
        "a part": open_.id[:-1],
        "a start": f"{open_.id[:-4]}.*",
        "either": f"{open_.id}|{empty.id}",
        "in capitals": f"(?i){open_.id.upper()}",
        "an anchor": f"^{open_.id}$",
        "empty": "",
        "nothing": "none-such",
        "not closed": "(",
        "not opened": ")",
        "a bad range": "[b-a]",
        "a look-ahead": "(?=a)",
    }.items():
        t.ask(f"by pattern, {label}", "ListTransactions", 2,
              {**ids, "transactionalIdPattern": pattern})  # fmt: skip
    held.release()
    preparing.wait("CompleteCommit")
    t.ask("when all are done", "ListTransactions", 2, ids)


def timeout(t):
    """A transaction that runs for too long is aborted, and its producer is fenced."""
    topic = t.topic(1)
    for version in (1, 3, 5):
        p = Producer(t, f"id for {version}", timeout=300).add((topic, 0))
        p.produce(topic)
        p.wait("CompleteAbort")
        p.note_state(f"after the timeout, {version}")
        t.ask("to end it", "EndTxn", version, p.end_body())
        t.ask("to abort it", "EndTxn", version, p.end_body(False))
        added = min(version, 3)
        t.ask(f"to add, {version}", "AddPartitionsToTxn", added, p.add_body(added, (topic, 0)))
        offsets = p.identity(groupId="group")
        t.ask(f"to add offsets, {version}", "AddOffsetsToTxn", min(version, 4), offsets)
        produced = {1: 9, 3: 11, 5: 12}[version]
        records = p.records(topic=topic)
        t.ask("to write", "Produce", produced, p.produce_body(topic, records, produced))
        expected = p.init_body(producerId=p.producer_id, producerEpoch=p.epoch)
        t.ask(f"to recover, {version}", "InitProducerId", max(version, 3), expected)
        t.ask("a new start", "InitProducerId", version, p.init_body())
    t.ask("what is in the log", "Fetch", 12, {"maxWaitMs": 0, "topics": [{"topic": topic,
          "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1 << 20}]}]})  # fmt: skip
