//! A reader with isolation level read_committed. Like the Java consumer, it leaves out the records
//! of aborted transactions that the response lists.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::AbortedTransaction;
use sordini::records::{Batch, ControlRecordType};

use crate::{
    client::Client,
    consume,
    history::{CommittedRead, Place},
};

/// The isolation level read_committed.
const READ_COMMITTED: i8 = 1;

/// Reads a partition from its first offset. Never returns.
pub async fn read(mut client: Client, place: Place) {
    let mut next = 0;
    loop {
        let (leader, epoch) = client.leader(&place).await;
        let request = consume::fetch(&place, next, epoch).with_isolation_level(READ_COMMITTED);
        let answer = client.ask(&leader, 12, &request).await;
        let answer = answer.and_then(|mut it| it.responses.pop()?.partitions.pop());
        let Some(answer) = answer.filter(|it| it.error_code == 0) else {
            client.forget_leader(&place);
            client.rest().await;
            continue;
        };
        let batches = batches(answer.records.unwrap_or_default());
        let aborted = answer.aborted_transactions.unwrap_or_default();
        let delivered = delivered(&batches, aborted);
        let mut history = client.history.lock();
        for batch in &batches {
            let header = &batch.header;
            if header.base_offset != next {
                let wrong = format!("{place:?}: {} was read after {next}", header.base_offset);
                history.wrong.push(wrong);
            }
            next = header.last_offset() + 1;
            history.note_read(&client.name, &place, header);
        }
        history.transactions.reads.push(CommittedRead {
            place: place.clone(),
            last_stable_offset: answer.last_stable_offset,
            batches: delivered,
        });
    }
}

fn batches(mut records: Bytes) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Ok(batch) = Batch::split_first(&mut records) {
        batches.push(batch);
    }
    batches
}

/// The base offset of each batch, and whether its records are those of no aborted transaction.
fn delivered(batches: &[Batch], mut aborted: Vec<AbortedTransaction>) -> Vec<(i64, bool)> {
    aborted.sort_by_key(|it| it.first_offset);
    let mut later = VecDeque::from(aborted);
    let mut producers = BTreeSet::new();
    let mut delivered = Vec::new();
    for batch in batches {
        let header = &batch.header;
        while let Some(begun) = later.pop_front_if(|it| it.first_offset <= header.last_offset()) {
            producers.insert(begun.producer_id.0);
        }
        let is_aborted = header.is_transactional() && producers.contains(&header.producer_id);
        if header.is_control() && is_abort(batch) {
            producers.remove(&header.producer_id);
        }
        delivered.push((header.base_offset, !header.is_control() && !is_aborted));
    }
    delivered
}

fn is_abort(batch: &Batch) -> bool {
    let mut records = batch.records(1 << 10).into_iter().flatten();
    let key = records.next().and_then(|record| record.ok()?.key);
    key.is_some_and(|key| ControlRecordType::from_key(&key) == Ok(ControlRecordType::Abort))
}
