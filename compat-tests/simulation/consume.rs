//! A consumer that reads a partition from its beginning, and a client that commits offsets.

use std::collections::BTreeSet;

use kafka_protocol::messages::FetchRequest;
use sordini::{protocol::ErrorCode, records::Batch};

use crate::{client::Client, history::Place, requests};

/// Reads a partition from its first offset. Never returns.
pub async fn read(mut client: Client, place: Place) {
    let mut next = 0;
    loop {
        let (leader, epoch) = client.leader(&place).await;
        let answer = client.ask(&leader, 12, &fetch(&place, next, epoch)).await;
        let answer = answer.and_then(|mut it| it.responses.pop()?.partitions.pop());
        let Some(answer) = answer else {
            client.forget_leader(&place);
            client.rest().await;
            continue;
        };
        if answer.error_code != 0 {
            client.history.lock().refused(answer.error_code);
            if answer.error_code == ErrorCode::OffsetOutOfRange.code() {
                let wrong = format!("{place:?}: {next} is out of range at {}", leader.host);
                client.history.lock().wrong.push(wrong);
            }
            client.forget_leader(&place);
            client.rest().await;
            continue;
        }
        let mut records = answer.records.unwrap_or_default();
        while let Ok(batch) = Batch::split_first(&mut records) {
            let header = &batch.header;
            next = header.last_offset() + 1;
            client.history.lock().note_read(&client.name, &place, header);
        }
    }
}

/// Fetches from a partition, without a fetch session.
pub fn fetch((topic, partition): &Place, offset: i64, leader_epoch: i32) -> FetchRequest {
    let mut request = requests::fetch(topic, [(*partition, offset)], 1 << 14);
    request.topics[0].partitions[0].current_leader_epoch = leader_epoch;
    request.with_max_wait_ms(300).with_max_bytes(1 << 16)
}

/// Commits increasing offsets and sometimes checks the committed one.
pub async fn commit(mut client: Client, place: Place) {
    let group = client.name.clone();
    let (mut next, mut acknowledged) = (1, None);
    // Commits without a response. One on an abandoned connection may arrive late, after a newer
    // commit on another connection. The broker cannot detect that (Kafka applies it, too).
    let mut unanswered = BTreeSet::new();
    loop {
        if client.rng.one_in(8) {
            match fetch_committed(&mut client, &group, &place).await {
                Some(found) if unanswered.contains(&found) => {}
                Some(found) if Some(found) < acknowledged || found >= next => {
                    let wrong = format!("{group}: {found} is committed, not {acknowledged:?}");
                    client.history.lock().wrong.push(wrong);
                }
                Some(_) => {}
                None => client.forget_coordinator(),
            }
        }
        let request = requests::commit_offset(&group, (&place.0, place.1), next, "");
        let coordinator = client.coordinator(&group).await;
        let answer = client.ask(&coordinator, 8, &request).await;
        let code = answer.and_then(|mut it| it.topics.pop()?.partitions.pop());
        match code.map(|it| it.error_code) {
            Some(0) => {
                acknowledged = Some(next);
                client.history.lock().note_progress(&group);
            }
            code => {
                if code.is_none() {
                    unanswered.insert(next);
                }
                client.history.lock().refused(code.unwrap_or_default());
                client.forget_coordinator();
            }
        }
        // A commit that was not acknowledged may have been applied, so its offset is not reused.
        next += 1;
        client.rest().await;
    }
}

/// Returns the committed offset, or -1 if there is none. `None` if the request failed.
pub async fn fetch_committed(client: &mut Client, group: &str, place: &Place) -> Option<i64> {
    let request = requests::committed_offset(group, (&place.0, place.1));
    let coordinator = client.coordinator(group).await;
    let mut answer = client.ask(&coordinator, 8, &request).await?.groups.pop()?;
    if answer.error_code != 0 {
        client.history.lock().refused(answer.error_code);
        return None;
    }
    let partition = answer.topics.pop()?.partitions.pop()?;
    (partition.error_code == 0).then_some(partition.committed_offset)
}
