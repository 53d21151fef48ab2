//! Producers, plain and idempotent, that repeat a batch until it is acknowledged by all.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        InitProducerIdRequest, ProduceRequest, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use sordini::{
    base::world::now_ms,
    protocol::ErrorCode,
    records::{BatchBuilder, BatchOptions},
};
use tokio::time::{Instant, sleep};

use crate::{
    client::Client,
    history::{Acked, Place},
};

/// A producer that is refused for its sequence for so long has met a bug.
const PATIENCE: Duration = Duration::from_secs(40);

pub async fn run(mut client: Client, place: Place, is_idempotent: bool) {
    let producer_id = if is_idempotent { producer_id(&mut client).await } else { -1 };
    let (mut number, mut sequence) = (0, 0);
    loop {
        let count = client.chance.between(1, 4);
        let values: Vec<_> =
            (number..number + count).map(|number| format!("{}:{number}", client.name)).collect();
        number += count;
        client.history.lock().sent.extend(values.iter().cloned());
        let batch = batch(&values, producer_id, sequence);
        sequence += count as i32;
        let base_offset = until_acknowledged(&mut client, &place, batch).await;
        {
            let mut history = client.history.lock();
            history.got_on(&client.name);
            history.acked.push(Acked { place: place.clone(), base_offset, values });
        }
        let pause = client.chance.between(5, 60);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn producer_id(client: &mut Client) -> i64 {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    loop {
        let broker = client.any_broker();
        match client.ask(&broker, 4, &request).await {
            Some(answer) if answer.error_code == 0 => return answer.producer_id.0,
            _ => client.rest().await,
        }
    }
}

fn batch(values: &[String], producer_id: i64, base_sequence: i32) -> Bytes {
    let idempotent = producer_id >= 0;
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch: if idempotent { 0 } else { -1 },
        base_sequence: if idempotent { base_sequence } else { -1 },
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
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(2_000).with_topic_data(vec![
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_string(place.0.clone())))
                .with_partition_data(vec![
                    PartitionProduceData::default().with_index(place.1).with_records(Some(batch)),
                ]),
        ]);
    let began = Instant::now();
    loop {
        let (leader, _) = client.leader(place).await;
        let answer = client.ask(&leader, 9, &request).await;
        let answer = answer.and_then(|mut it| it.responses.pop()?.partition_responses.pop());
        if let Some(answer) = answer {
            if answer.error_code == 0 {
                return answer.base_offset;
            }
            client.history.lock().refused(answer.error_code);
            let code = ErrorCode::try_from_code(answer.error_code);
            // One that leads no more may not know of what has been acknowledged since.
            let may_pass = code == Some(ErrorCode::OutOfOrderSequenceNumber);
            if may_pass && began.elapsed() > PATIENCE {
                let wrong = format!("{} is refused for ever: {code:?}", client.name);
                client.history.lock().wrong.push(wrong);
            }
        }
        client.forget_leader(place);
        client.rest().await;
    }
}
