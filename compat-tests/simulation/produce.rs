//! A plain producer with acks=all that repeats each batch until it is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::InitProducerIdRequest;
use sordini::{
    base::environment::now_ms,
    records::{BatchBuilder, BatchOptions},
};
use tokio::time::sleep;

use crate::{
    client::Client,
    history::{Acked, Place},
    requests,
};

pub async fn run(mut client: Client, place: Place) {
    let mut number = 0;
    loop {
        let count = client.rng.between(1, 4);
        let values: Vec<_> =
            (number..number + count).map(|number| format!("{}:{number}", client.name)).collect();
        number += count;
        let batch = batch(&values, -1, -1);
        let base_offset = until_acknowledged(&mut client, &place, batch).await;
        {
            let mut history = client.history.lock();
            history.note_progress(&client.name);
            history.acked.push(Acked { place: place.clone(), base_offset, values });
        }
        let pause = client.rng.between(5, 60);
        sleep(Duration::from_millis(pause)).await;
    }
}

pub async fn producer_id(client: &mut Client) -> i64 {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    loop {
        let broker = client.any_broker();
        match client.ask(&broker, 4, &request).await {
            Some(answer) if answer.error_code == 0 => return answer.producer_id.0,
            _ => client.rest().await,
        }
    }
}

/// Encodes a batch. A producer id of -1 makes it a batch without idempotence.
pub fn batch(values: &[String], producer_id: i64, base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch: if producer_id >= 0 { 0 } else { -1 },
        base_sequence,
        ..BatchOptions::default()
    });
    for value in values {
        builder.append(now_ms(), None, Some(value.as_bytes()), &[]);
    }
    let mut bytes = Vec::new();
    builder.build().write_to(&mut bytes);
    bytes.into()
}

async fn until_acknowledged(client: &mut Client, place: &Place, batch: Bytes) -> i64 {
    let request = requests::produce(&place.0, -1, [(place.1, batch)]).with_timeout_ms(2_000);
    loop {
        let (leader, _) = client.leader(place).await;
        let answer = client.ask(&leader, 9, &request).await;
        let answer = answer.and_then(|mut it| it.responses.pop()?.partition_responses.pop());
        if let Some(answer) = answer {
            if answer.error_code == 0 {
                return answer.base_offset;
            }
            client.history.lock().refused(answer.error_code);
        }
        client.forget_leader(place);
        client.rest().await;
    }
}
