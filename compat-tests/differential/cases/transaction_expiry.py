"""Transactional ids that nobody uses are forgotten."""

from ._transactions import SETTINGS as SHARED
from ._transactions import Producer, describe, wait_until

SETTINGS = {
    **SHARED,
    "transactional_id_expiration_ms": "1000",
    "transaction_remove_expired_transaction_cleanup_interval_ms": "100",
}
_NOT_FOUND = 105


def idle_ids(t):
    topic = t.topic(1)
    open_, idle = Producer(t, "open"), Producer(t, "idle")
    open_.add((topic, 0))
    done = Producer(t, "done").add((topic, 0)).end()
    for p in (idle, done):
        wait_until(f"{p.name} expires", lambda p=p: describe(t, p.id)["errorCode"] == _NOT_FOUND)
        t.ask(f"{p.name}: add", "AddPartitionsToTxn", 3, p.add_body(3, (topic, 0)))
        t.ask(f"{p.name}: add offsets", "AddOffsetsToTxn", 4, p.identity(groupId="group"))
        t.ask(f"{p.name}: end", "EndTxn", 5, p.end_body())
        t.ask(f"{p.name}: write", "Produce", 12, p.produce_body(topic, p.records(), 12))
        expected = p.init_body(producerId=p.producer_id, producerEpoch=p.epoch)
        answer = t.ask(f"{p.name}: begin again", "InitProducerId", 5, expected)
        t.note(f"{p.name}: it is another producer", answer["producerId"] != p.producer_id)
    open_.note_state("an open transaction stays")
