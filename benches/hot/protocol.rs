//! Decoding of a request: the shape check alone, and with the decoder.

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use kafka_protocol::{
    messages::{
        ApiKey, FetchRequest, ProduceRequest,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::Encodable,
};
use sordini::{
    base::TopicId,
    protocol::{frame::decode_body, shape::check_request},
};

use crate::batch;

const PRODUCE: i16 = 13;
const FETCH: i16 = 18;

fn encoded(request: impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("encodes");
    body.freeze()
}

/// A Produce request with a batch of 64 KiB for each of six partitions.
fn produce() -> Bytes {
    let batch = batch(63, 1024);
    let records = Bytes::from([&batch.header.to_bytes()[..], &batch.payload].concat());
    let data = |index| {
        PartitionProduceData::default().with_index(index).with_records(Some(records.clone()))
    };
    let topic = TopicProduceData::default()
        .with_topic_id(TopicId::from_u128(1))
        .with_partition_data((0..6).map(data).collect());
    encoded(ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]), PRODUCE)
}

fn fetch() -> Bytes {
    let partition = |index| FetchPartition::default().with_partition(index);
    let topic = FetchTopic::default()
        .with_topic_id(TopicId::from_u128(1))
        .with_partitions((0..1000).map(partition).collect());
    encoded(FetchRequest::default().with_topics(vec![topic]), FETCH)
}

#[divan::bench(sample_size = 1000)]
fn guard_produce_of_6(bencher: Bencher) {
    let body = produce();
    bencher
        .bench(|| check_request(ApiKey::Produce as i16, PRODUCE, divan::black_box(body.clone())));
}

#[divan::bench(sample_size = 1000)]
fn decode_produce_of_6(bencher: Bencher) {
    let body = produce();
    bencher.bench(|| {
        decode_body::<ProduceRequest>(ApiKey::Produce, PRODUCE, body.clone()).expect("decodes")
    });
}

#[divan::bench(sample_size = 20)]
fn guard_fetch_of_1000(bencher: Bencher) {
    let body = fetch();
    bencher.bench(|| check_request(ApiKey::Fetch as i16, FETCH, divan::black_box(body.clone())));
}

#[divan::bench(sample_size = 20)]
fn decode_fetch_of_1000(bencher: Bencher) {
    let body = fetch();
    bencher.bench(|| {
        decode_body::<FetchRequest>(ApiKey::Fetch, FETCH, body.clone()).expect("decodes")
    });
}
